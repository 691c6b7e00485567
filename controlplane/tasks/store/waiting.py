"""What ends while it waits, or waits on: tasks that do not wait for an agent, and maintenance windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Subquery, case, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.records import Due, Window
from controlplane.tasks.rules import TaskState
from controlplane.tasks.store.tables import HAS_WINDOW, IS_SKIPPING, tasks

QUEUED = int(TaskState.QUEUED)


async def left_waiting(connection: AsyncConnection, agents: Subquery, limit: int) -> Sequence[str]:
    """Return the ids of tasks that do not wait for an agent that is offline, and whose agent is.

    ``agents`` is the agents room's selectable of (agent_id, offline).
    """
    found = (
        select(tasks.c.task_id)
        .join(agents, agents.c.agent_id == tasks.c.agent_id)
        .where(IS_SKIPPING, tasks.c.state == QUEUED, agents.c.offline)
        .limit(limit)
        .with_for_update(of=tasks, skip_locked=True)
    )
    return (await connection.execute(found)).scalars().all()


async def missed_windows(connection: AsyncConnection, now: int, limit: int) -> dict[Window, list[str]]:
    """Return the ids of queued tasks whose window has closed, at most ``limit``, by their window."""
    found = (
        select(tasks.c.task_id, tasks.c.window_cron, tasks.c.window_zone, tasks.c.window_duration)
        .where(HAS_WINDOW, tasks.c.state == QUEUED, tasks.c.window_end <= now)
        .limit(limit)
        .with_for_update(of=tasks, skip_locked=True)
    )
    missed: dict[Window, list[str]] = {}
    for row in await connection.execute(found):
        window = Window(row.window_cron, row.window_zone, row.window_duration)
        missed.setdefault(window, []).append(row.task_id)
    return missed


async def move_to(work: UnitOfWork, task_ids: Sequence[str], due: Due, now: int) -> None:
    """Let tasks wait for another window; one that waits longer between two attempts still does."""
    waits_longer: Any = tasks.c.not_before > due.not_before
    await work.connection.execute(
        update(tasks)
        .where(tasks.c.task_id.in_(task_ids))
        .values(
            not_before=case((waits_longer, tasks.c.not_before), else_=due.not_before),
            window_end=due.window_end,
            update_time=now,
            revision=await work.revision(),
        )
    )
