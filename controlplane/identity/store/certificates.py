"""What was issued to agents, and where each certificate stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.identity.records import CertificateRecord
from controlplane.identity.rules import LIVE_STATES, CertificateState, Standing
from controlplane.identity.store.tables import certificates
from controlplane.storage.prepared import Prepared, each, listed
from controlplane.storage.unit_of_work import UnitOfWork

COLUMNS = [column for column in certificates.columns if column.name not in ("revoke_time", "revoke_reason")]
"""The columns that make a ``CertificateRecord``."""

_LIVE = [state.value for state in LIVE_STATES]


async def add(work: UnitOfWork, certificate: CertificateRecord) -> None:
    """Add a certificate that was signed."""
    values = {**asdict(certificate), "state": certificate.state.value}
    await work.connection.execute(insert(certificates), values)


async def find(connection: AsyncConnection, serials: Collection[str]) -> dict[str, CertificateRecord]:
    """Return the certificates of these serial numbers that exist, by serial number."""
    rows = await connection.execute(select(*COLUMNS).where(certificates.c.serial.in_(serials)))
    return {row.serial: record(row) for row in rows}


_STANDINGS = Prepared(
    select(
        certificates.c.serial,
        certificates.c.agent_id,
        certificates.c.state,
        certificates.c.not_before,
        certificates.c.not_after,
    ).where(certificates.c.serial.in_(each("serials")))
)


async def standings(connection: AsyncConnection, serials: Collection[str]) -> dict[str, Standing]:
    """Return where the certificates of these serial numbers stand, by serial number."""
    rows = await _STANDINGS.rows(connection, {"serials": listed(serials)})
    return {
        serial: Standing(agent_id, CertificateState(state), not_before, not_after)
        for serial, agent_id, state, not_before, not_after in rows
    }


async def live(connection: AsyncConnection, agent_id: str) -> list[CertificateRecord]:
    """Return an agent's CURRENT and NEXT certificates, at most one of each."""
    statement = select(*COLUMNS).where(certificates.c.agent_id == agent_id, certificates.c.state.in_(_LIVE))
    return [record(row) for row in await connection.execute(statement)]


async def supersede(work: UnitOfWork, serials: Sequence[str]) -> None:
    """Make certificates SUPERSEDED."""
    statement = update(certificates).where(certificates.c.serial.in_(serials))
    await work.connection.execute(statement.values(state=CertificateState.SUPERSEDED.value))


async def promote(work: UnitOfWork, agent_ids: Sequence[str]) -> None:
    """Make these agents' NEXT certificates CURRENT and their former CURRENT ones SUPERSEDED."""
    for old, new in (
        (CertificateState.CURRENT, CertificateState.SUPERSEDED),
        (CertificateState.NEXT, CertificateState.CURRENT),
    ):
        statement = update(certificates).where(
            certificates.c.agent_id.in_(agent_ids), certificates.c.state == old.value
        )
        await work.connection.execute(statement.values(state=new.value))


async def newest(connection: AsyncConnection, agent_ids: Collection[str]) -> dict[str, int]:
    """Return when the youngest certificate of each of these agents begins, in whatever state it is."""
    statement = (
        select(certificates.c.agent_id, func.max(certificates.c.not_before))
        .where(certificates.c.agent_id.in_(agent_ids))
        .group_by(certificates.c.agent_id)
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}


async def adopt(work: UnitOfWork, fresh: Sequence[CertificateRecord]) -> None:
    """Add certificates that were issued elsewhere; all that were live of their agents become SUPERSEDED."""
    statement = update(certificates).where(
        certificates.c.agent_id.in_({certificate.agent_id for certificate in fresh}),
        certificates.c.state.in_(_LIVE),
    )
    await work.connection.execute(statement.values(state=CertificateState.SUPERSEDED.value))
    rows = [{**asdict(certificate), "state": certificate.state.value} for certificate in fresh]
    await work.connection.execute(insert(certificates), rows)


async def revoke_live(work: UnitOfWork, agent_id: str, reason: str, now: int) -> list[str]:
    """Revoke an agent's CURRENT and NEXT certificates and return their serial numbers."""
    statement = (
        update(certificates)
        .where(certificates.c.agent_id == agent_id, certificates.c.state.in_(_LIVE))
        .values(state=CertificateState.REVOKED.value, revoke_time=now, revoke_reason=reason)
        .returning(certificates.c.serial)
    )
    return list((await work.connection.execute(statement)).scalars())


async def revoked(connection: AsyncConnection, now: int) -> Iterable[str]:
    """Return the serial numbers of revoked certificates whose time is not over."""
    statement = select(certificates.c.serial).where(
        certificates.c.state == CertificateState.REVOKED.value, certificates.c.not_after >= now
    )
    return (await connection.execute(statement)).scalars()


_OVERLAP = 5 * 60 * 1_000_000
"""Clocks of two machines differ, and a transaction that commits late has an early time."""


async def revoked_since(connection: AsyncConnection, since: int, now: int) -> Iterable[str]:
    """Return the serial numbers of what was revoked since an instant, and is not over; some come again."""
    statement = select(certificates.c.serial).where(
        certificates.c.revoke_time >= since - _OVERLAP, certificates.c.not_after >= now
    )
    return (await connection.execute(statement)).scalars()


async def forget(work: UnitOfWork, before: int, limit: int) -> list[str]:
    """Delete at most ``limit`` certificates whose time was over at ``before``; return their serials."""
    over = select(certificates.c.serial).where(certificates.c.not_after < before).limit(limit)
    statement = delete(certificates).where(certificates.c.serial.in_(over))
    return list((await work.connection.execute(statement.returning(certificates.c.serial))).scalars())


def record(row: Row[tuple[object, ...]]) -> CertificateRecord:
    """Return the record of a row of ``COLUMNS``."""
    values = row._asdict()
    return CertificateRecord(**{**values, "state": CertificateState(values["state"])})
