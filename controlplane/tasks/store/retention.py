"""Deleting what is over: final tasks with all that belongs to them, and batches without tasks."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, exists, select

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.store.tables import (
    IS_EXPANDING,
    IS_FINAL,
    task_attempts,
    task_batches,
    task_output,
    tasks,
)


async def ended_before(work: UnitOfWork, before: int, limit: int) -> Sequence[str]:
    """Return the ids of at most ``limit`` tasks that are final since before an instant, oldest first."""
    statement = (
        select(tasks.c.task_id)
        .where(IS_FINAL, tasks.c.state_time < before)
        .order_by(tasks.c.state_time)
        .limit(limit)
    )
    return (await work.connection.execute(statement)).scalars().all()


async def delete_output(work: UnitOfWork, task_ids: Sequence[str], limit: int) -> int:
    """Delete at most ``limit`` chunks of output of tasks; returns how many."""
    of_tasks = select(task_attempts.c.attempt_id).where(task_attempts.c.task_id.in_(task_ids))
    chunks = select(task_output.c.id).where(task_output.c.attempt_id.in_(of_tasks)).limit(limit)
    return (await work.connection.execute(delete(task_output).where(task_output.c.id.in_(chunks)))).rowcount


async def delete_tasks(work: UnitOfWork, task_ids: Sequence[str]) -> None:
    """Delete tasks without output, and their attempts."""
    await work.connection.execute(delete(task_attempts).where(task_attempts.c.task_id.in_(task_ids)))
    await work.connection.execute(delete(tasks).where(tasks.c.task_id.in_(task_ids)))


async def delete_batches(work: UnitOfWork, before: int, limit: int) -> int:
    """Delete at most ``limit`` batches that were made before an instant and have no task left."""
    has_tasks = exists().where(tasks.c.batch_id == task_batches.c.batch_id).correlate(task_batches)
    empty = (
        select(task_batches.c.batch_id)
        .where(task_batches.c.create_time < before, ~IS_EXPANDING, ~has_tasks)
        .order_by(task_batches.c.create_time)
        .limit(limit)
    )
    statement = delete(task_batches).where(task_batches.c.batch_id.in_(empty))
    return (await work.connection.execute(statement)).rowcount
