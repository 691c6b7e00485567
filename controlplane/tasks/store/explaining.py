"""What an explanation wants to know of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.tasks.ledger.events import DeliveryEvent
from controlplane.tasks.rules import TaskState
from controlplane.tasks.store.delivery import window_is_open
from controlplane.tasks.store.ledger import task_events
from controlplane.tasks.store.replaying import has_later, newest_replay
from controlplane.tasks.store.tables import IS_LIVE, IS_OPEN, IS_SKIPPING, task_attempts, tasks

AnyRow = Row[*tuple[Any, ...]]
"""A row of any columns."""

_TASK = select(
    *(column for column in tasks.c if column is not tasks.c.spec),
    has_later().label("has_later"),
    newest_replay().label("replayed_as"),
)
_ATTEMPT = select(
    *(column for column in task_attempts.c if column.name not in ("result", "summary")),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A task's row, those of its attempts, and its last events of each kind."""

    task: AnyRow
    attempts: list[AnyRow]
    events: Mapping[DeliveryEvent, AnyRow]


async def find(connection: AsyncConnection, task_id: str) -> Found | None:
    """Return what is stored of a task, or None."""
    task = (await connection.execute(_TASK.where(tasks.c.task_id == task_id))).first()
    if task is None:
        return None
    attempts = await connection.execute(
        _ATTEMPT.where(task_attempts.c.task_id == task_id).order_by(task_attempts.c.number)
    )
    told = (int(DeliveryEvent.SENT), int(DeliveryEvent.CANCEL_REQUESTED))
    events = await connection.execute(
        select(task_events)
        .where(task_events.c.task_id == task_id, task_events.c.event.in_(told))
        .order_by(task_events.c.time, task_events.c.id)
    )
    return Found(task, list(attempts), {DeliveryEvent(row.event): row for row in events})


async def ahead(connection: AsyncConnection, task: AnyRow, now: int) -> int:
    """Return how many queued tasks go to the agent of a task before it, now."""
    before = or_(
        tasks.c.priority > task.priority,
        and_(
            tasks.c.priority == task.priority,
            or_(
                tasks.c.create_time < task.create_time,
                and_(tasks.c.create_time == task.create_time, tasks.c.task_id < task.task_id),
            ),
        ),
    )
    statement = select(func.count()).where(
        tasks.c.agent_id == task.agent_id,
        IS_OPEN,
        tasks.c.state == int(TaskState.QUEUED),
        tasks.c.not_before <= now,
        tasks.c.expire_time > now,
        window_is_open(now),
        before,
    )
    return int((await connection.execute(statement)).scalar_one())


async def in_hand(connection: AsyncConnection, agent_id: str) -> int:
    """Return how many attempts an agent was handed that have not ended."""
    statement = select(func.count()).where(task_attempts.c.agent_id == agent_id, IS_LIVE)
    return int((await connection.execute(statement)).scalar_one())


@dataclass(frozen=True, slots=True)
class OpenCount:
    """An agent's tasks in one state that is not final; instants in microseconds.

    ``skipping`` of the ``count`` do not wait for an agent that is OFFLINE; ``oldest`` is the oldest's
    creation, ``expires`` the nearest expiry.
    """

    state: TaskState
    count: int
    skipping: int
    oldest: int
    expires: int


async def open_work(connection: AsyncConnection, agent_id: str) -> list[OpenCount]:
    """Return an agent's tasks that are not final, by state."""
    rows = await connection.execute(
        select(
            tasks.c.state,
            func.count(),
            func.sum(case((IS_SKIPPING, 1), else_=0)),
            func.min(tasks.c.create_time),
            func.min(tasks.c.expire_time),
        )
        .where(tasks.c.agent_id == agent_id, IS_OPEN)
        .group_by(tasks.c.state)
        .order_by(tasks.c.state)
    )
    return [OpenCount(TaskState(row[0]), row[1], int(row[2]), row[3], row[4]) for row in rows]
