"""Moving tasks through leases, attempts and results, many at a time.

Each function takes what a whole group of operations needs and does it with a
fixed number of statements, however large the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.records import Assigned
from controlplane.tasks.rules import AttemptState, TaskState, TaskView
from controlplane.tasks.store.tables import (
    IS_LIVE,
    IS_OPEN,
    OF_BATCH,
    SPEC,
    task_attempts,
    task_batches,
    task_output,
    tasks,
)

Connection = AsyncConnection

AnyRow = Row[*tuple[Any, ...]]
"""A row of any columns."""

IN_ONE_STATEMENT = 10_000
"""Ids in one IN list; SQLite binds at most 32,766 values."""

QUEUED, LEASED, RUNNING = int(TaskState.QUEUED), int(TaskState.LEASED), int(TaskState.RUNNING)


@dataclass(frozen=True, slots=True)
class AttemptWithTask:
    """An attempt and the task that it belongs to, as the rules want them."""

    attempt_id: str
    task_id: str
    agent_id: str
    attempt_state: AttemptState
    number: int
    run_limit: int
    received: Mapping[int, int]
    current: bool
    task: TaskView


VIEW = (
    tasks.c.state,
    tasks.c.cancel_requested,
    tasks.c.idempotent,
    tasks.c.max_attempts,
    tasks.c.attempt_count,
    tasks.c.failed_count,
)


def view(row: AnyRow) -> TaskView:
    """Return the rules' view of a row that has the columns ``VIEW``."""
    return TaskView(
        TaskState(row.state),
        bool(row.cancel_requested),
        bool(row.idempotent),
        row.max_attempts,
        row.attempt_count,
        row.failed_count,
    )


_ATTEMPTS = select(
    task_attempts.c.attempt_id,
    task_attempts.c.task_id,
    task_attempts.c.agent_id,
    task_attempts.c.state.label("attempt_state"),
    task_attempts.c.number,
    task_attempts.c.stdout_bytes,
    task_attempts.c.stderr_bytes,
    task_attempts.c.log_bytes,
    tasks.c.run_limit,
    tasks.c.current_attempt_id,
    *VIEW,
).join(tasks, tasks.c.task_id == task_attempts.c.task_id)


def _attempt(row: AnyRow) -> AttemptWithTask:
    return AttemptWithTask(
        row.attempt_id,
        row.task_id,
        row.agent_id,
        AttemptState(row.attempt_state),
        row.number,
        row.run_limit,
        {1: row.stdout_bytes, 2: row.stderr_bytes, 3: row.log_bytes},
        row.current_attempt_id == row.attempt_id,
        view(row),
    )


async def attempts(connection: AsyncConnection, attempt_ids: Iterable[str]) -> dict[str, AttemptWithTask]:
    """Return the attempts that exist, by id."""
    found: dict[str, AttemptWithTask] = {}
    for some in _portions(attempt_ids):
        rows = await connection.execute(_ATTEMPTS.where(task_attempts.c.attempt_id.in_(some)))
        found |= {row.attempt_id: _attempt(row) for row in rows}
    return found


def _portions(ids: Iterable[str]) -> Iterator[list[str]]:
    # A group may hold a thousand journals of thousands of attempts each.
    listed = list(ids)
    for start in range(0, len(listed), IN_ONE_STATEMENT):
        yield listed[start : start + IN_ONE_STATEMENT]


async def live_attempts(connection: AsyncConnection, agent_ids: Iterable[str]) -> list[AttemptWithTask]:
    """Return the leased and running attempts of some agents."""
    rows = await connection.execute(
        _ATTEMPTS.where(
            task_attempts.c.agent_id.in_(set(agent_ids)),
            IS_LIVE,
        ).order_by(task_attempts.c.lease_time, task_attempts.c.attempt_id)
    )
    return [_attempt(row) for row in rows]


async def live_attempts_of(connection: AsyncConnection, task_ids: Iterable[str]) -> list[AttemptWithTask]:
    """Return the leased and running attempts of some tasks."""
    return [
        _attempt(row)
        for some in _portions(task_ids)
        for row in await connection.execute(_ATTEMPTS.where(task_attempts.c.task_id.in_(some), IS_LIVE))
    ]


async def queued(connection: AsyncConnection, limits: Mapping[str, int], now: int) -> dict[str, list[AnyRow]]:
    """Return, for each agent id of ``limits``, at most so many tasks to hand out next, in their order.

    Order for one agent: priority, then creation (then id, so that ties are the
    same on every backend).
    """
    place = (
        func.row_number()
        .over(
            partition_by=tasks.c.agent_id,
            order_by=(tasks.c.priority.desc(), tasks.c.create_time, tasks.c.task_id),
        )
        .label("place")
    )
    ranked = (
        select(tasks.c.task_id, place)
        .where(
            tasks.c.agent_id.in_(list(limits)),
            IS_OPEN,
            tasks.c.state == QUEUED,
            tasks.c.not_before <= now,
            tasks.c.expire_time > now,
        )
        .subquery()
    )
    rows = await connection.execute(
        select(tasks.c.task_id, tasks.c.agent_id, SPEC, tasks.c.run_limit, *VIEW, ranked.c.place)
        .select_from(tasks)
        .join(ranked, ranked.c.task_id == tasks.c.task_id)
        .outerjoin(task_batches, OF_BATCH)
        .where(ranked.c.place <= max(limits.values()))
        .order_by(tasks.c.agent_id, ranked.c.place)
    )
    found: dict[str, list[AnyRow]] = {agent_id: [] for agent_id in limits}
    for row in rows:
        if row.place <= limits[row.agent_id]:
            found[row.agent_id].append(row)
    return found


async def insert_attempts(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert leased attempts; each row has every column that is not filled later."""
    if rows:
        await work.connection.execute(insert(task_attempts), rows)


async def update_tasks(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update tasks by ``task_id``; all rows have the same columns. Sets ``revision``."""
    await _update_many(work, tasks, "task_id", rows, {"revision": await work.revision()} if rows else {})


async def update_attempts(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update attempts by ``attempt_id``; all rows have the same columns."""
    await _update_many(work, task_attempts, "attempt_id", rows, {})


async def _update_many(
    work: UnitOfWork,
    table: Any,
    key: str,
    rows: Sequence[Mapping[str, Any]],
    extra: Mapping[str, Any],
) -> None:
    if not rows:
        return
    names = [name for name in rows[0] if name != key]
    statement = (
        update(table)
        .where(table.c[key] == bindparam("key_"))
        .values({name: bindparam(f"value_{name}") for name in names} | dict(extra))
    )
    await work.connection.execute(
        statement,
        [{"key_": row[key], **{f"value_{name}": row[name] for name in names}} for row in rows],
    )


async def insert_output(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append chunks of output."""
    if rows:
        await work.connection.execute(insert(task_output), rows)


async def lapse_leases(work: UnitOfWork, times: Mapping[str, int]) -> None:
    """End the leases of tasks that go on with another attempt; ``times`` by task id."""
    if times:
        await work.connection.execute(
            update(task_attempts)
            .where(
                task_attempts.c.task_id == bindparam("of_task"),
                IS_LIVE,
                task_attempts.c.state == int(AttemptState.LEASED),
            )
            .values(state=int(AttemptState.LAPSED), end_time=bindparam("at")),
            [{"of_task": task_id, "at": now} for task_id, now in times.items()],
        )


async def assignments(connection: AsyncConnection, attempt_ids: Sequence[str]) -> list[Assigned]:
    """Return leased attempts in the form in which they go to their agent."""
    statement = (
        select(
            task_attempts.c.attempt_id,
            task_attempts.c.task_id,
            task_attempts.c.number,
            SPEC,
            tasks.c.run_limit,
            tasks.c.idempotent,
        )
        .select_from(task_attempts)
        .join(tasks, tasks.c.task_id == task_attempts.c.task_id)
        .outerjoin(task_batches, OF_BATCH)
        .order_by(task_attempts.c.lease_time, task_attempts.c.attempt_id)
    )
    return [
        Assigned(row.attempt_id, row.task_id, row.number, row.spec, row.run_limit, bool(row.idempotent))
        for some in _portions(attempt_ids)
        for row in await connection.execute(statement.where(task_attempts.c.attempt_id.in_(some)))
    ]


async def cancellations(connection: AsyncConnection, agent_id: str) -> list[str]:
    """Return the ids of an agent's live attempts whose task is to be cancelled."""
    return list(
        (
            await connection.execute(
                select(task_attempts.c.attempt_id)
                .join(tasks, tasks.c.task_id == task_attempts.c.task_id)
                .where(
                    task_attempts.c.agent_id == agent_id,
                    IS_LIVE,
                    tasks.c.current_attempt_id == task_attempts.c.attempt_id,
                    tasks.c.cancel_requested,
                )
            )
        ).scalars()
    )


async def having_work(connection: AsyncConnection, agent_ids: Sequence[str], now: int) -> list[str]:
    """Return those agents that have something to fetch: a queued task, a lease not taken, a cancellation."""
    statement = (
        select(tasks.c.agent_id)
        .where(
            tasks.c.agent_id.in_(agent_ids),
            IS_OPEN,
            or_(
                and_(tasks.c.state == QUEUED, tasks.c.not_before <= now, tasks.c.expire_time > now),
                tasks.c.state == LEASED,
                and_(tasks.c.state == RUNNING, tasks.c.cancel_requested),
            ),
        )
        .distinct()
    )
    return list((await connection.execute(statement)).scalars())


async def agents_with_work(connection: AsyncConnection, now: int) -> list[str]:
    """Return all agents that have a queued task due, a lease that ran out untaken, or work to stop."""
    queued_ids = (
        select(tasks.c.agent_id)
        .where(IS_OPEN, tasks.c.state == QUEUED, tasks.c.not_before <= now, tasks.c.expire_time > now)
        .distinct()
    )
    untaken_ids = (
        select(task_attempts.c.agent_id)
        .where(
            IS_LIVE,
            task_attempts.c.state == int(AttemptState.LEASED),
            task_attempts.c.lease_expire_time <= now,
        )
        .distinct()
    )
    stopping_ids = (
        select(tasks.c.agent_id).where(IS_OPEN, tasks.c.state == RUNNING, tasks.c.cancel_requested).distinct()
    )
    return list((await connection.execute(queued_ids.union(untaken_ids, stopping_ids))).scalars())


async def expired(connection: AsyncConnection, now: int, limit: int) -> list[AnyRow]:
    """Return open tasks that were not begun in time."""
    rows = await connection.execute(
        select(tasks.c.task_id, tasks.c.current_attempt_id, *VIEW)
        .where(IS_OPEN, tasks.c.state.in_((QUEUED, LEASED)), tasks.c.expire_time <= now)
        .limit(limit)
    )
    return list(rows)


async def lapsed(
    connection: AsyncConnection, sessions: FromClause, now: int, limit: int
) -> list[AttemptWithTask]:
    """Return leased attempts past their lease whose session is gone.

    ``sessions`` is the agents room's selectable of (agent_id, session_epoch,
    online). While the session lives the agent may still journal the attempt, so
    its lease does not lapse.
    """
    rows = await connection.execute(
        _ATTEMPTS.join(sessions, sessions.c.agent_id == task_attempts.c.agent_id)
        .where(
            IS_LIVE,
            task_attempts.c.state == int(AttemptState.LEASED),
            task_attempts.c.lease_expire_time <= now,
            or_(
                sessions.c.session_epoch != task_attempts.c.session_epoch,
                sessions.c.online.is_(False),
            ),
        )
        .limit(limit)
    )
    return [_attempt(row) for row in rows]


async def overrun(connection: AsyncConnection, now: int, limit: int) -> list[AttemptWithTask]:
    """Return running attempts past their run deadline."""
    rows = await connection.execute(
        _ATTEMPTS.where(
            IS_LIVE, task_attempts.c.state == int(AttemptState.RUNNING), task_attempts.c.run_deadline <= now
        ).limit(limit)
    )
    return [_attempt(row) for row in rows]
