"""The table of schedules that run once in the installation. Instants are microseconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, String, Table, and_, bindparam, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.schema import metadata
from controlplane.storage.unit_of_work import UnitOfWork

schedules = Table(
    "schedules",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("holder", String(63), nullable=True),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_expire_time", BigInteger, nullable=False, server_default=text("0")),
    Column("last_begin_time", BigInteger, nullable=True),
    Column("last_end_time", BigInteger, nullable=True),
    Column("next_due_time", BigInteger, nullable=False),
    comment="Periodic work that runs once in the installation, and which process holds it.",
)


@dataclass(frozen=True, slots=True)
class Held:
    """A schedule that a process holds; its writes are good while ``fence`` is the row's."""

    name: str
    fence: int
    next_due: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over, and when the next one is due."""

    name: str
    begin: int
    end: int
    next_due: int


async def add_missing(work: UnitOfWork, first_due: Mapping[str, int]) -> None:
    """Add the schedules that the table does not know, each with when it is first due."""
    known = set((await work.connection.execute(select(schedules.c.name))).scalars())
    rows = [{"name": name, "next_due_time": due} for name, due in first_due.items() if name not in known]
    if rows:
        await work.connection.execute(insert(schedules), rows)


async def record(work: UnitOfWork, holder: str, runs: Sequence[Run]) -> None:
    """Write down runs of schedules that ``holder`` still holds."""
    if runs:
        statement = (
            update(schedules)
            .where(schedules.c.name == bindparam("of"), schedules.c.holder == bindparam("by"))
            .values(
                last_begin_time=bindparam("begin"),
                last_end_time=bindparam("end"),
                next_due_time=bindparam("due"),
            )
        )
        rows: list[dict[str, Any]] = [
            {"of": run.name, "by": holder, "begin": run.begin, "end": run.end, "due": run.next_due}
            for run in runs
        ]
        await work.connection.execute(statement, rows)


async def hold(work: UnitOfWork, holder: str, names: Collection[str], *, now: int, expire: int) -> list[Held]:
    """Renew what ``holder`` holds of ``names``, take over what nobody does, and return all that it has.

    What is taken over gets a greater fence: whoever held it before can no longer write under it.
    """
    mine = schedules.c.holder == holder
    free = or_(schedules.c.holder.is_(None), and_(schedules.c.holder != holder, _lapsed(now)))
    columns = (schedules.c.name, schedules.c.fence, schedules.c.next_due_time)
    renewed = await work.connection.execute(
        update(schedules)
        .where(schedules.c.name.in_(names), mine)
        .values(lease_expire_time=expire)
        .returning(*columns)
    )
    held = [Held(*row) for row in renewed.all()]
    if len(held) < len(names):
        taken = await work.connection.execute(
            update(schedules)
            .where(schedules.c.name.in_(names), free)
            .values(holder=holder, fence=schedules.c.fence + 1, lease_expire_time=expire)
            .returning(*columns)
        )
        held += [Held(*row) for row in taken.all()]
    return held


async def give_up(work: UnitOfWork, holders: Collection[str]) -> None:
    """Let others have at once what ``holders`` hold."""
    await work.connection.execute(
        update(schedules).where(schedules.c.holder.in_(holders)).values(holder=None, lease_expire_time=0)
    )


async def fence(connection: AsyncConnection, name: str) -> int | None:
    """Return the fence of a schedule; it cannot be taken over before the caller's transaction ends."""
    statement = select(schedules.c.fence).where(schedules.c.name == name).with_for_update(read=True)
    found: int | None = (await connection.execute(statement)).scalar()
    return found


def _lapsed(now: int) -> Any:
    return schedules.c.lease_expire_time <= now
