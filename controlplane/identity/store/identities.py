"""What operators and integrators have of certificates. One is revoked by a row of ``denied_serials``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict

from sqlalchemy import Row, Select, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.callers import IdentityKind
from controlplane.identity.records import IdentityRecord
from controlplane.identity.store.tables import denied_serials, identities
from controlplane.storage.backends import POSTGRESQL, insert_into
from controlplane.storage.unit_of_work import UnitOfWork

Position = tuple[int, str]
"""(create_time, serial): what a listing is ordered by, downwards."""

_LOCK = 0x6964656E74
"""Who holds this lock of the database changes identities; the number says "ident"."""

_WITH_END = identities.outerjoin(denied_serials, denied_serials.c.serial == identities.c.serial)


async def add(work: UnitOfWork, records: Collection[IdentityRecord]) -> None:
    """Add identities; one that is there stays as it is."""
    rows = []
    for record in records:
        values = {**asdict(record), "kind": record.kind.value}
        del values["revoke_time"]
        rows.append(values)
    await work.connection.execute(insert_into(work.connection, identities).on_conflict_do_nothing(), rows)


async def find(connection: AsyncConnection, serial: str) -> IdentityRecord | None:
    """Return an identity, None where there is none."""
    row = (await connection.execute(_reading().where(identities.c.serial == serial))).one_or_none()
    return None if row is None else _record(row)


async def page(connection: AsyncConnection, before: Position | None, limit: int) -> list[IdentityRecord]:
    """Return at most ``limit`` identities, newest first, that come after the position ``before``."""
    order = tuple_(identities.c.create_time, identities.c.serial)
    statement = _reading().order_by(identities.c.create_time.desc(), identities.c.serial.desc())
    if before is not None:
        statement = statement.where(order < before)
    return [_record(row) for row in await connection.execute(statement.limit(limit))]


async def serials(connection: AsyncConnection) -> Iterable[str]:
    """Return the serial numbers of all identities."""
    return (await connection.execute(select(identities.c.serial))).scalars()


async def wait_for_others(work: UnitOfWork, serial: str) -> bool:
    """Let changes of identities wait for each other; return whether ``serial`` was refused by one of them.

    On SQLite transactions do so anyway, and whoever refused it has told this process.
    """
    if work.connection.dialect.name != POSTGRESQL:
        return False
    await work.connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    refused = select(denied_serials.c.serial).where(denied_serials.c.serial == serial)
    return (await work.connection.execute(refused)).first() is not None


async def active_operators(connection: AsyncConnection, now: int, beside: str) -> int:
    """Return how many operators' identities may call at ``now``, beside the one of a serial number."""
    statement = (
        select(func.count())
        .select_from(_WITH_END)
        .where(
            identities.c.kind == IdentityKind.OPERATOR.value,
            identities.c.expire_time >= now,
            identities.c.serial != beside,
            denied_serials.c.serial.is_(None),
        )
    )
    return int((await connection.execute(statement)).scalar_one())


async def forget(work: UnitOfWork, before: int) -> list[str]:
    """Delete identities whose time was over at ``before`` and return their serial numbers."""
    statement = delete(identities).where(identities.c.expire_time < before)
    return list((await work.connection.execute(statement.returning(identities.c.serial))).scalars())


def _reading() -> Select[tuple[object, ...]]:
    revoke_time = denied_serials.c.deny_time.label("revoke_time")
    return select(*identities.columns, revoke_time).select_from(_WITH_END)


def _record(row: Row[tuple[object, ...]]) -> IdentityRecord:
    values = row._asdict()
    return IdentityRecord(**{**values, "kind": IdentityKind(values["kind"])})
