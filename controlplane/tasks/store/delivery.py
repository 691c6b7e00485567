"""Moving tasks through leases, attempts and results, many at a time.

Each function takes what a whole group of operations needs and does it with a
fixed number of statements, however large the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause

from controlplane.storage.prepared import Prepared, each, listed, updating
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.records import Assigned
from controlplane.tasks.rules import UNREPORTED, AttemptState, TaskState, TaskView
from controlplane.tasks.store.ledger import insert_overtaken
from controlplane.tasks.store.tables import (
    IS_LIVE,
    IS_OPEN,
    IS_UNBEGUN,
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
    window_end: int | None
    kind: str
    task: TaskView


VIEW = (
    tasks.c.state,
    tasks.c.cancel_requested,
    tasks.c.idempotent,
    tasks.c.max_attempts,
    tasks.c.attempt_count,
    tasks.c.failed_count,
    tasks.c.superseded,
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
        bool(row.superseded),
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
    tasks.c.window_end,
    tasks.c.kind,
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
        row.window_end,
        row.kind,
        view(row),
    )


# What is read here is decided on and changed in the same transaction.
_CHANGED = _ATTEMPTS.with_for_update(of=[tasks, task_attempts])
# What sweeps find is left alone where somebody is at it: he decides, or the next sweep does.
_LEFT_ALONE = _ATTEMPTS.with_for_update(of=[tasks, task_attempts], skip_locked=True)
_ATTEMPTS_BY_ID = Prepared(_CHANGED.where(task_attempts.c.attempt_id.in_(each("attempt_ids"))))
_LIVE = Prepared(
    _CHANGED.where(task_attempts.c.agent_id.in_(each("agent_ids")), IS_LIVE).order_by(
        task_attempts.c.lease_time, task_attempts.c.attempt_id
    )
)
_UNREPORTED = Prepared(
    _CHANGED.where(
        tasks.c.agent_id.in_(each("agent_ids")),
        IS_OPEN,
        or_(*(task_attempts.c.state == int(state) for state in UNREPORTED)),
    ).order_by(task_attempts.c.task_id, task_attempts.c.number)
)
_LIVE_OF_TASKS = Prepared(_CHANGED.where(task_attempts.c.task_id.in_(each("task_ids")), IS_LIVE))


async def attempts(connection: AsyncConnection, attempt_ids: Iterable[str]) -> dict[str, AttemptWithTask]:
    """Return the attempts that exist, by id."""
    rows = await _ATTEMPTS_BY_ID.rows(connection, {"attempt_ids": listed(attempt_ids)})
    return {row.attempt_id: _attempt(row) for row in rows}


async def live_attempts(connection: AsyncConnection, agent_ids: Iterable[str]) -> list[AttemptWithTask]:
    """Return the leased and running attempts of some agents."""
    rows = await _LIVE.rows(connection, {"agent_ids": listed(set(agent_ids))})
    return [_attempt(row) for row in rows]


async def unreported_attempts(connection: AsyncConnection, agent_ids: Iterable[str]) -> list[AttemptWithTask]:
    """Return what agents may have in their journals of their open tasks, by task, in order of number."""
    rows = await _UNREPORTED.rows(connection, {"agent_ids": listed(set(agent_ids))})
    return [_attempt(row) for row in rows]


async def live_attempts_of(connection: AsyncConnection, task_ids: Iterable[str]) -> list[AttemptWithTask]:
    """Return the leased and running attempts of some tasks."""
    rows = await _LIVE_OF_TASKS.rows(connection, {"task_ids": listed(task_ids)})
    return [_attempt(row) for row in rows]


def window_is_open(now: Any) -> ColumnElement[bool]:
    """Return the condition of a task that may be sent as to its window; before that opens, it is not due."""
    return or_(tasks.c.window_end.is_(None), tasks.c.window_end > now)


def _queued() -> Prepared:
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
            tasks.c.agent_id.in_(each("agent_ids")),
            IS_OPEN,
            tasks.c.state == QUEUED,
            tasks.c.not_before <= bindparam("now"),
            # A sum, which no index has: SQLite would go through all that wait by their expiry, not by agent.
            tasks.c.expire_time + 0 > bindparam("now"),
            window_is_open(bindparam("now")),
        )
        .subquery()
    )
    return Prepared(
        select(tasks.c.task_id, tasks.c.agent_id, SPEC, tasks.c.run_limit, *VIEW, ranked.c.place)
        .select_from(tasks)
        .join(ranked, ranked.c.task_id == tasks.c.task_id)
        .outerjoin(task_batches, OF_BATCH)
        # Once more, for PostgreSQL looks at this again where the row was changed before it was locked.
        .where(ranked.c.place <= bindparam("most"), tasks.c.state == QUEUED)
        .order_by(tasks.c.agent_id, ranked.c.place)
        .with_for_update(of=tasks, skip_locked=True)
    )


_QUEUED = _queued()


async def queued(connection: AsyncConnection, limits: Mapping[str, int], now: int) -> dict[str, list[Any]]:
    """Return, for each agent id of ``limits``, at most so many tasks to hand out next, in their order.

    Order for one agent: priority, then creation (then id, so that ties are the
    same on every backend).
    """
    asked = {"agent_ids": listed(limits), "now": now, "most": max(limits.values())}
    found: dict[str, list[Any]] = {agent_id: [] for agent_id in limits}
    for row in await _QUEUED.rows(connection, asked):
        if row.place <= limits[row.agent_id]:
            found[row.agent_id].append(row)
    return found


_INSERT_ATTEMPT = Prepared(
    insert(task_attempts),
    (
        "attempt_id",
        "task_id",
        "agent_id",
        "number",
        "state",
        "session_epoch",
        "lease_time",
        "lease_expire_time",
    ),
)
_INSERT_OUTPUT = Prepared(insert(task_output), ("attempt_id", "stream", "offset", "data"))
_LAPSE = Prepared(
    update(task_attempts)
    .where(
        task_attempts.c.task_id == bindparam("of_task"),
        IS_LIVE,
        task_attempts.c.state == int(AttemptState.LEASED),
    )
    .values(state=int(AttemptState.LAPSED), end_time=bindparam("at"))
)


async def insert_attempts(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert leased attempts; each row has every column that is not filled later."""
    if rows:
        await _INSERT_ATTEMPT.run_each(work.connection, rows)


async def update_tasks(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update tasks by ``task_id``; all rows have the same columns. Sets ``revision``."""
    if rows:
        revision = await work.revision()
        await _update_each(work, tasks, "task_id", [{**row, "revision": revision} for row in rows])


async def update_attempts(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update attempts by ``attempt_id``; all rows have the same columns."""
    if rows:
        await _update_each(work, task_attempts, "attempt_id", rows)


async def _update_each(work: UnitOfWork, table: Table, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = tuple(name for name in rows[0] if name != key)
    await updating(table, key, columns).run_each(work.connection, rows)


async def insert_output(work: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append chunks of output."""
    if rows:
        await _INSERT_OUTPUT.run_each(work.connection, rows)


async def lapse_leases(work: UnitOfWork, times: Mapping[str, int]) -> None:
    """End the leases of tasks that go on with another attempt; ``times`` by task id."""
    if times:
        await insert_overtaken(work, times)
        await _LAPSE.run_each(
            work.connection, [{"of_task": task_id, "at": now} for task_id, now in times.items()]
        )


_ASSIGNMENTS = Prepared(
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
    .where(task_attempts.c.attempt_id.in_(each("attempt_ids")))
    .order_by(task_attempts.c.lease_time, task_attempts.c.attempt_id)
)
_CANCELLATIONS = Prepared(
    select(task_attempts.c.attempt_id)
    .join(tasks, tasks.c.task_id == task_attempts.c.task_id)
    .where(
        task_attempts.c.agent_id == bindparam("agent"),
        IS_LIVE,
        tasks.c.current_attempt_id == task_attempts.c.attempt_id,
        tasks.c.cancel_requested,
    )
)
_HAVING_WORK = Prepared(
    select(tasks.c.agent_id)
    .where(
        tasks.c.agent_id.in_(each("agent_ids")),
        IS_OPEN,
        or_(
            and_(
                tasks.c.state == QUEUED,
                tasks.c.not_before <= bindparam("now"),
                tasks.c.expire_time > bindparam("now"),
                window_is_open(bindparam("now")),
            ),
            tasks.c.state == LEASED,
            and_(tasks.c.state == RUNNING, tasks.c.cancel_requested),
        ),
    )
    .distinct()
)


async def assignments(connection: AsyncConnection, attempt_ids: Sequence[str]) -> list[Assigned]:
    """Return leased attempts in the form in which they go to their agent."""
    if not attempt_ids:
        return []
    rows = await _ASSIGNMENTS.rows(connection, {"attempt_ids": listed(attempt_ids)})
    return [
        Assigned(row.attempt_id, row.task_id, row.number, row.spec, row.run_limit, bool(row.idempotent))
        for row in rows
    ]


async def cancellations(connection: AsyncConnection, agent_id: str) -> list[str]:
    """Return the ids of an agent's live attempts whose task is to be cancelled."""
    return [row.attempt_id for row in await _CANCELLATIONS.rows(connection, {"agent": agent_id})]


async def having_work(connection: AsyncConnection, agent_ids: Sequence[str], now: int) -> list[str]:
    """Return those agents that have something to fetch: a queued task, a lease not taken, a cancellation."""
    rows = await _HAVING_WORK.rows(connection, {"agent_ids": listed(agent_ids), "now": now})
    return [row.agent_id for row in rows]


async def agents_with_work(connection: AsyncConnection, now: int) -> list[str]:
    """Return all agents that have a queued task due, a lease that ran out untaken, or work to stop."""
    queued_ids = (
        select(tasks.c.agent_id)
        .where(
            IS_OPEN,
            tasks.c.state == QUEUED,
            tasks.c.not_before <= now,
            tasks.c.expire_time > now,
            window_is_open(now),
        )
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
        .where(IS_UNBEGUN, tasks.c.expire_time <= now)
        .limit(limit)
        .with_for_update(of=tasks, skip_locked=True)
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
        _LEFT_ALONE.join(sessions, sessions.c.agent_id == task_attempts.c.agent_id)
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
        _LEFT_ALONE.where(
            IS_LIVE, task_attempts.c.state == int(AttemptState.RUNNING), task_attempts.c.run_deadline <= now
        ).limit(limit)
    )
    return [_attempt(row) for row in rows]
