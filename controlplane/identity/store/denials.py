"""Serial numbers of operators' and integrators' certificates that are refused."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.identity.store.tables import denied_serials
from controlplane.storage.backends import insert_into
from controlplane.storage.unit_of_work import UnitOfWork


async def deny(work: UnitOfWork, serial: str, *, not_after: int, reason: str, creator: str, now: int) -> None:
    """Refuse a serial number from now on; one that is refused keeps its first reason."""
    values = {"serial": serial, "not_after": not_after, "reason": reason, "creator": creator}
    statement = (
        insert_into(work.connection, denied_serials).values(**values, deny_time=now).on_conflict_do_nothing()
    )
    await work.connection.execute(statement)


async def denied(connection: AsyncConnection) -> Iterable[str]:
    """Return all serial numbers that are refused, until ``forget``.

    Those of certificates whose time seems to be over, too: a clock that is ahead may be set back.
    """
    return (await connection.execute(select(denied_serials.c.serial))).scalars()


async def forget(work: UnitOfWork, before: int) -> list[str]:
    """Delete denials of certificates whose time was over at ``before``; returns the serial numbers."""
    statement = delete(denied_serials).where(denied_serials.c.not_after < before)
    return list((await work.connection.execute(statement.returning(denied_serials.c.serial))).scalars())
