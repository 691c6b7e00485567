"""Creating anew what ended without success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    String,
    Subquery,
    and_,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    select,
)

from controlplane.filtering import BoundFilter
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.rules import REPLAYABLE, OfflinePolicy, TaskState, state_at_creation
from controlplane.tasks.store.creation import DELIVERY_COLUMNS, OFFLINE_AT_CREATION
from controlplane.tasks.store.ledger import insert_replayed, insert_unattempted
from controlplane.tasks.store.reading import condition
from controlplane.tasks.store.tables import tasks

QUEUED = int(TaskState.QUEUED)
_COPIED = ("agent_id", "batch_id", "spec", "kind", *DELIVERY_COLUMNS)


Condition = ColumnElement[bool]
"""Which tasks; opaque to all but stores."""


@dataclass(frozen=True, slots=True)
class Made:
    """A task that replays another one."""

    task_id: str
    agent_id: str
    state: TaskState
    kind: str


@dataclass(frozen=True, slots=True)
class Replayable:
    """A task as the decision on its replay wants it."""

    agent_id: str
    state: TaskState
    has_later: bool


def has_later() -> ColumnElement[bool]:
    """Return the condition of a task of which a later one of its key exists, so that it is not replayed."""
    # Of two that were created at the same moment each has to be taken for the later one: which of them a
    # replay would take the place of cannot be told.
    later = tasks.alias()
    return exists().where(
        later.c.agent_id == tasks.c.agent_id,
        later.c.supersede_key == tasks.c.supersede_key,
        later.c.create_time >= tasks.c.create_time,
        later.c.task_id != tasks.c.task_id,
    )


def newest_replay() -> ScalarSelect[Any]:
    """Return the id of the newest task that replays a task, as a column of it; NULL where none does."""
    replay = tasks.alias()
    return (
        select(replay.c.task_id)
        .where(replay.c.replay_of == tasks.c.task_id)
        .order_by(replay.c.create_time.desc(), replay.c.task_id.desc())
        .limit(1)
        .scalar_subquery()
    )


async def task_to_replay(work: UnitOfWork, task_id: str) -> Replayable | None:
    """Return a task, and whether a later one of its key exists."""
    statement = select(tasks.c.agent_id, tasks.c.state, has_later().label("has_later"))
    row = (await work.connection.execute(statement.where(tasks.c.task_id == task_id))).first()
    return None if row is None else Replayable(row.agent_id, TaskState(row.state), bool(row.has_later))


def one(task_id: str) -> Condition:
    """Return the condition of one task."""
    return tasks.c.task_id == task_id


def matching(chosen: BoundFilter) -> Condition:
    """Return the condition of all that match a filter, can be replayed and have not been."""
    replay = tasks.alias()
    return and_(
        condition(chosen),
        tasks.c.state.in_([int(state) for state in REPLAYABLE]),
        ~has_later(),
        ~exists().where(replay.c.replay_of == tasks.c.task_id),
    )


async def insert_replays(
    work: UnitOfWork,
    chosen: Condition,
    agents: Subquery,
    replay_id: str,
    creator: str,
    now: int,
    limit: int,
) -> Sequence[Made]:
    """Create anew the oldest ``limit`` tasks that ``chosen`` is true of; returns them.

    Their ids are the replay's and a number. ``agents`` is the agents room's selectable of
    (agent_id, online) of those that are not deleted; other agents' tasks are left out. A
    task with a window waits in a closed one: the sweep moves it to the next.
    """
    oldest = (tasks.c.create_time, tasks.c.task_id)
    number = func.row_number().over(order_by=oldest)
    skips = and_(tasks.c.offline_policy == int(OfflinePolicy.SKIP), ~agents.c.online)
    skipped = int(state_at_creation(OfflinePolicy.SKIP, online=False))
    values: dict[str, Any] = {
        "task_id": literal(f"{replay_id}.") + cast(number, String()),
        "replay_of": tasks.c.task_id,
        **{name: tasks.c[name] for name in _COPIED},
        "state": case((skips, skipped), else_=QUEUED),
        "state_time": literal(now),
        "state_reason": case((skips, OFFLINE_AT_CREATION), else_=""),
        "not_before": literal(now),
        "window_end": case((tasks.c.window_cron.is_not(None), now), else_=None),
        "creator": literal(creator),
        "create_time": literal(now),
        "expire_time": tasks.c.queue_time + now,
        "update_time": literal(now),
        "revision": literal(await work.revision()),
    }
    source = (
        select(*(value.label(name) for name, value in values.items()))
        .join_from(tasks, agents, agents.c.agent_id == tasks.c.agent_id)
        .where(chosen)
        .order_by(*oldest)
        .limit(limit)
    )
    statement = insert(tasks).from_select(list(values), source)
    returned = statement.returning(tasks.c.task_id, tasks.c.agent_id, tasks.c.state, tasks.c.kind)
    rows = (await work.connection.execute(returned)).all()
    await insert_replayed(work, now)
    work.before_commit(insert_unattempted, [(TaskState.SKIPPED, now)])
    return [Made(task_id, agent_id, TaskState(state), kind) for task_id, agent_id, state, kind in rows]
