"""Enrolment tokens, and what each use of one gave."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import ColumnElement, Row, delete, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.identity.records import CertificateRecord, TokenRecord
from controlplane.identity.store.certificates import COLUMNS, record
from controlplane.identity.store.tables import certificates, enrollment_tokens, enrollment_uses
from controlplane.storage.backends import insert_into
from controlplane.storage.unit_of_work import UnitOfWork

Connection = AsyncConnection
"""What a use case reads by; so that it need not know SQLAlchemy."""

Position = tuple[int, str]
"""(create_time, token_id): what a listing is ordered by, downwards."""


async def add(work: UnitOfWork, token: TokenRecord) -> None:
    """Add a token."""
    values = {**asdict(token), "labels": dict(token.labels)}
    await work.connection.execute(insert(enrollment_tokens), values)


async def find(connection: AsyncConnection, token_id: str) -> TokenRecord | None:
    """Return a token, None where there is none."""
    statement = select(enrollment_tokens).where(enrollment_tokens.c.token_id == token_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _record(row)


async def page(connection: AsyncConnection, before: Position | None, limit: int) -> list[TokenRecord]:
    """Return at most ``limit`` tokens, newest first, that come after the position ``before``."""
    order = tuple_(enrollment_tokens.c.create_time, enrollment_tokens.c.token_id)
    statement = select(enrollment_tokens).order_by(
        enrollment_tokens.c.create_time.desc(), enrollment_tokens.c.token_id.desc()
    )
    if before is not None:
        statement = statement.where(order < before)
    return [_record(row) for row in await connection.execute(statement.limit(limit))]


async def revoke(work: UnitOfWork, token_id: str, now: int) -> None:
    """Revoke a token; one that is revoked keeps its time."""
    statement = update(enrollment_tokens).where(
        enrollment_tokens.c.token_id == token_id, enrollment_tokens.c.revoke_time.is_(None)
    )
    await work.connection.execute(statement.values(revoke_time=now))


async def take_use(work: UnitOfWork, token_id: str) -> bool:
    """Count one more use; returns False, and counts nothing, where none is left."""
    uses, most = enrollment_tokens.c.use_count, enrollment_tokens.c.max_uses
    statement = update(enrollment_tokens).where(enrollment_tokens.c.token_id == token_id, uses < most)
    return (await work.connection.execute(statement.values(use_count=uses + 1))).rowcount == 1


async def remember_use(work: UnitOfWork, token_id: str, certificate: CertificateRecord) -> None:
    """Remember which certificate the token gave to this agent and key."""
    values = {
        "token_id": token_id,
        "agent_id": certificate.agent_id,
        "key_digest": certificate.key_digest,
        "serial": certificate.serial,
        "use_time": certificate.issue_time,
    }
    again = {"serial": certificate.serial, "use_time": certificate.issue_time}
    # The same key may enrol twice with one token, when its agent was deleted in between.
    statement = insert_into(work.connection, enrollment_uses).values(**values)
    await work.connection.execute(
        statement.on_conflict_do_update(index_elements=list(enrollment_uses.primary_key.columns), set_=again)
    )


async def was_used_by(connection: AsyncConnection, token_id: str, agent_id: str) -> bool:
    """Return whether the token has let this agent in before."""
    statement = select(enrollment_uses.c.serial).where(
        enrollment_uses.c.token_id == token_id, enrollment_uses.c.agent_id == agent_id
    )
    return (await connection.execute(statement.limit(1))).one_or_none() is not None


async def given(
    connection: AsyncConnection, token_id: str, agent_id: str, key_digest: bytes
) -> CertificateRecord | None:
    """Return the certificate that the token gave to this agent and key, in whatever state it is."""
    statement = (
        select(*COLUMNS)
        .join(enrollment_uses, enrollment_uses.c.serial == certificates.c.serial)
        .where(
            enrollment_uses.c.token_id == token_id,
            enrollment_uses.c.agent_id == agent_id,
            enrollment_uses.c.key_digest == key_digest,
        )
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else record(row)


async def forget_uses(work: UnitOfWork, over: int, limit: int) -> int:
    """Delete at most ``limit`` uses of tokens that ended before ``over``; returns how many."""
    uses = enrollment_uses.c
    ended = select(enrollment_tokens.c.token_id).where(_ended(over))
    key = (uses.token_id, uses.agent_id, uses.key_digest)
    chosen = select(*key).where(uses.token_id.in_(ended)).limit(limit)
    statement = delete(enrollment_uses).where(tuple_(*key).in_(chosen))
    return (await work.connection.execute(statement)).rowcount


async def forget(work: UnitOfWork, over: int, limit: int) -> int:
    """Delete at most ``limit`` tokens that ended before ``over`` and have no uses left; returns how many."""
    chosen = select(enrollment_tokens.c.token_id).where(_ended(over)).limit(limit)
    statement = delete(enrollment_tokens).where(enrollment_tokens.c.token_id.in_(chosen))
    return (await work.connection.execute(statement)).rowcount


def _ended(over: int) -> ColumnElement[bool]:
    return or_(enrollment_tokens.c.expire_time < over, enrollment_tokens.c.revoke_time < over)


def _record(row: Row[tuple[object, ...]]) -> TokenRecord:
    return TokenRecord(**row._asdict())
