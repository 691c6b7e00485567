"""Exceptions from policy, as they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Row, and_, cast, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.filtering import BooleanField, BoundFilter, FilterSchema, TextField, TimestampField
from controlplane.packaging.policy.rules import PolicyException
from controlplane.packaging.store.tables import policy_exceptions
from controlplane.storage.backends import insert_into
from controlplane.storage.filters import compile_filter
from controlplane.storage.unit_of_work import UnitOfWork

FILTER = FilterSchema(
    {
        "exception_id": TextField(),
        "package": TextField(),
        "vulnerability": TextField(),
        "requester": TextField(),
        "approver": TextField(),
        "approved": BooleanField(),
        "revoked": BooleanField(),
        "expire_time": TimestampField(),
        "create_time": TimestampField(),
    }
)
"""What a filter over exceptions may name; ``package`` is a digest."""

_COLUMNS: Mapping[str, Any] = {
    **{name: policy_exceptions.c[name] for name in FILTER.fields if name not in ("approved", "revoked")},
    "approved": cast(policy_exceptions.c.approve_time.is_not(None), Boolean),
    "revoked": cast(policy_exceptions.c.revoke_time.is_not(None), Boolean),
}


@dataclass(frozen=True, slots=True)
class ExceptionRecord:
    """Somebody's leave for one vulnerability of one package; ``approver`` is empty before an approval."""

    exception_id: str
    package: str
    vulnerability: str
    justification: str
    requester: str
    approver: str
    expire_time: int
    create_time: int
    approve_time: int | None = None
    revoke_time: int | None = None

    def for_policy(self) -> PolicyException:
        """Return it as the rules of policy weigh it."""
        return PolicyException(
            self.exception_id,
            self.package,
            self.vulnerability,
            self.requester,
            self.approver,
            self.expire_time,
            self.revoke_time is not None,
        )


def _exception(row: Row[Any]) -> ExceptionRecord:
    return ExceptionRecord(**{name: getattr(row, name) for name in ExceptionRecord.__slots__})


async def insert_once(work: UnitOfWork, exception: ExceptionRecord) -> bool:
    """Insert an exception; False where there is one of its id."""
    values = {name: getattr(exception, name) for name in ExceptionRecord.__slots__}
    fresh = insert_into(work.connection, policy_exceptions).values(values).on_conflict_do_nothing()
    # Not every driver counts the rows of an insert.
    inserted = fresh.returning(policy_exceptions.c.exception_id)
    return (await work.connection.execute(inserted)).first() is not None


async def find(
    connection: AsyncConnection, exception_id: str, *, lock: bool = False
) -> ExceptionRecord | None:
    """Return an exception, or None; with ``lock`` nobody else changes it until the transaction ends."""
    statement = select(policy_exceptions).where(policy_exceptions.c.exception_id == exception_id)
    row = (await connection.execute(statement.with_for_update() if lock else statement)).first()
    return _exception(row) if row else None


async def change(work: UnitOfWork, exception_id: str, **values: Any) -> None:
    """Write columns of an exception."""
    table = policy_exceptions
    await work.connection.execute(update(table).where(table.c.exception_id == exception_id).values(**values))


async def of_package(connection: AsyncConnection, package: str) -> list[ExceptionRecord]:
    """Return all exceptions of a package, also those that do not count: a verdict says why."""
    table = policy_exceptions.c
    statement = select(policy_exceptions).where(table.package == package).order_by(table.exception_id)
    return [_exception(row) for row in await connection.execute(statement)]


def condition(chosen: BoundFilter) -> ColumnElement[bool]:
    """Return the condition of a filter over exceptions."""
    return compile_filter(chosen, _COLUMNS)


async def page(
    connection: AsyncConnection, chosen: BoundFilter, before: tuple[int, str] | None, limit: int
) -> list[ExceptionRecord]:
    """Return exceptions that match, newest first, after the place ``before``: (create_time, exception_id)."""
    table = policy_exceptions.c
    statement = select(policy_exceptions).where(condition(chosen))
    if before is not None:
        created, exception_id = before
        later = and_(table.create_time == created, table.exception_id < exception_id)
        statement = statement.where(or_(table.create_time < created, later))
    ordered = statement.order_by(table.create_time.desc(), table.exception_id.desc()).limit(limit)
    return [_exception(row) for row in await connection.execute(ordered)]


async def count(connection: AsyncConnection, chosen: BoundFilter) -> int:
    """Return how many exceptions match."""
    statement = select(func.count()).select_from(policy_exceptions).where(condition(chosen))
    return int((await connection.execute(statement)).scalar_one())
