"""Ending tasks for other reasons than a result: cancellation and deletion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.rules import AttemptState, TaskState, TaskView
from controlplane.tasks.store.delivery import IN_ONE_STATEMENT, VIEW, view
from controlplane.tasks.store.ledger import insert_ended
from controlplane.tasks.store.tables import IS_LIVE, IS_OPEN, task_attempts, tasks


@dataclass(frozen=True, slots=True)
class Cancellable:
    """A task as the decision on its cancellation wants it."""

    agent_id: str
    kind: str
    task: TaskView


async def task_to_cancel(work: UnitOfWork, task_id: str) -> Cancellable | None:
    """Return a task inside the transaction that may cancel it."""
    statement = (
        select(tasks.c.agent_id, tasks.c.kind, *VIEW).where(tasks.c.task_id == task_id).with_for_update()
    )
    row = (await work.connection.execute(statement)).first()
    return None if row is None else Cancellable(row.agent_id, row.kind, view(row))


async def request_cancel(work: UnitOfWork, task_id: str, now: int) -> None:
    """Note that a task's agent is to be asked to stop it."""
    await work.connection.execute(
        update(tasks)
        .where(tasks.c.task_id == task_id)
        .values(cancel_requested=True, update_time=now, revision=await work.revision())
    )


async def open_task_ids(work: UnitOfWork, agent_id: str) -> list[str]:
    """Return the ids of an agent's tasks that are not final."""
    statement = select(tasks.c.task_id).where(tasks.c.agent_id == agent_id, IS_OPEN).with_for_update()
    return list((await work.connection.execute(statement)).scalars())


async def end_tasks(
    work: UnitOfWork, task_ids: Sequence[str], state: TaskState, reason: str, now: int
) -> None:
    """Put tasks into a final state."""
    for start in range(0, len(task_ids), IN_ONE_STATEMENT):
        some = task_ids[start : start + IN_ONE_STATEMENT]
        await insert_ended(work, some, state, reason, now)
        await work.connection.execute(
            update(tasks)
            .where(tasks.c.task_id.in_(some))
            .values(
                state=int(state),
                state_time=now,
                state_reason=reason,
                update_time=now,
                revision=await work.revision(),
            )
        )


async def end_attempts_of(work: UnitOfWork, task_ids: Sequence[str], state: AttemptState, now: int) -> None:
    """End the live attempts of tasks."""
    for start in range(0, len(task_ids), IN_ONE_STATEMENT):
        await work.connection.execute(
            update(task_attempts)
            .where(
                task_attempts.c.task_id.in_(task_ids[start : start + IN_ONE_STATEMENT]),
                IS_LIVE,
            )
            .values(state=int(state), end_time=now)
        )
