"""Batches: choosing their agents at once, making their tasks in slices, and cancelling them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    and_,
    case,
    delete,
    exists,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.records import BatchRecord, Chosen, Due, NewTask
from controlplane.tasks.rules import (
    BatchState,
    Event,
    OfflinePolicy,
    TaskState,
    state_at_creation,
    transition,
)
from controlplane.tasks.store.creation import (
    OFFLINE_AT_CREATION,
    delivery,
    new_row,
    options_of,
    superseded_values,
)
from controlplane.tasks.store.ledger import insert_cancel_requested, insert_created, insert_unattempted
from controlplane.tasks.store.tables import (
    IS_EXPANDING,
    IS_OPEN,
    task_batch_targets,
    task_batches,
    tasks,
)

QUEUED = int(TaskState.QUEUED)
CANCELLED = int(transition(TaskState.QUEUED, Event.CANCEL))


@dataclass(frozen=True, slots=True)
class Expanded:
    """What a slice did: the agents that have something to fetch, and whether the batch is whole."""

    woken: Sequence[str]
    whole: bool


def record(row: Any) -> BatchRecord:
    """Return a batch of a row of the whole table."""
    return BatchRecord(
        row.batch_id,
        Chosen(row.selector, row.percentage, row.seed),
        NewTask(row.kind, row.spec, options_of(row)),
        BatchState(row.state),
        row.target_count,
        row.expanded_count,
        row.task_count,
        row.creator,
        row.create_time,
    )


async def insert_batch(
    work: UnitOfWork,
    batch_id: str,
    chosen: Chosen,
    agents: Select[str],
    new_task: NewTask,
    creator: str,
    now: int,
) -> BatchRecord:
    """Insert a batch that chose every agent id that ``agents`` selects, and has no task yet.

    One statement chooses, so the selector is evaluated at one instant. The spec stays
    with the batch: its tasks have none of their own.
    """
    batch = {
        "batch_id": batch_id,
        "selector": chosen.selector,
        "percentage": chosen.percentage,
        "seed": chosen.seed,
        "kind": new_task.kind,
        "spec": new_task.spec,
        **delivery(new_task.options),
        "state": int(BatchState.EXPANDING),
        "task_count": 0,
        "creator": creator,
        "create_time": now,
    }
    await work.connection.execute(insert(task_batches).values(batch))
    source = select(literal(batch_id), agents.subquery().c[0])
    targets = insert(task_batch_targets).from_select(["batch_id", "agent_id"], source)
    # Of an insert, SQLAlchemy keeps the count on PostgreSQL only where it is asked to.
    kept = {"preserve_rowcount": True}
    count = (await work.connection.execute(targets, execution_options=kept)).rowcount
    return BatchRecord(batch_id, chosen, new_task, BatchState.EXPANDING, count, 0, 0, creator, now)


async def note_targets(work: UnitOfWork, batch: BatchRecord) -> None:
    """Keep how many agents a batch chose; ``expand`` does so too."""
    await work.connection.execute(
        update(task_batches)
        .where(task_batches.c.batch_id == batch.batch_id)
        .values(target_count=batch.target_count)
    )


async def next_batch(work: UnitOfWork) -> BatchRecord | None:
    """Return the oldest batch that is EXPANDING and that no other transaction expands at this moment."""
    found = (
        select(task_batches)
        .where(IS_EXPANDING)
        .order_by(task_batches.c.create_time)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (await work.connection.execute(found)).first()
    return None if row is None else record(row)


def _slice(batch: BatchRecord, limit: int) -> Select[str]:
    return (
        select(task_batch_targets.c.agent_id)
        .where(task_batch_targets.c.batch_id == batch.batch_id)
        .order_by(task_batch_targets.c.agent_id)
        .limit(limit)
    )


async def targets(connection: AsyncConnection, batch: BatchRecord, limit: int) -> Sequence[str]:
    """Return the ids of the agents of a batch's next slice."""
    return (await connection.execute(_slice(batch, limit))).scalars().all()


async def expand(
    work: UnitOfWork, batch: BatchRecord, agents: Subquery, due: Due, now: int, limit: int
) -> Expanded:
    """Make the tasks of at most ``limit`` agents of a batch, and count them in it.

    ``agents`` is the agents room's selectable of (agent_id, online) of those that are
    not deleted. A task's id is made of the batch's and the agent's, hence unique
    without a generator that each backend would have to bring, and never made twice.
    Who has got a task is no target any more: what is left says where the next slice
    begins, also after a kill.
    """
    slice_ = _slice(batch, limit).subquery()
    made = await _insert_tasks(work, batch, slice_, agents, due, now)
    await insert_created(work, batch.batch_id, now)
    if batch.new_task.options.supersede_key:
        await _supersede(work, batch, slice_, now)
        work.before_commit(insert_unattempted, [(TaskState.SUPERSEDED, now)])
    if batch.new_task.options.offline is OfflinePolicy.SKIP:
        work.before_commit(insert_unattempted, [(TaskState.SKIPPED, now)])
    done = delete(task_batch_targets).where(
        task_batch_targets.c.batch_id == batch.batch_id,
        task_batch_targets.c.agent_id.in_(select(slice_.c.agent_id)),
    )
    expanded = batch.expanded_count + (await work.connection.execute(done)).rowcount
    whole = expanded >= batch.target_count
    await work.connection.execute(
        update(task_batches)
        .where(task_batches.c.batch_id == batch.batch_id)
        .values(
            state=int(BatchState.EXPANDED if whole else BatchState.EXPANDING),
            target_count=batch.target_count,
            expanded_count=expanded,
            task_count=batch.task_count + len(made),
        )
    )
    return Expanded([row.agent_id for row in made if row.state == QUEUED], whole)


async def _insert_tasks(
    work: UnitOfWork, batch: BatchRecord, slice_: Subquery, agents: Subquery, due: Due, now: int
) -> Sequence[Any]:
    policy = batch.new_task.options.offline
    queued: Any = literal(QUEUED)
    reason: Any = literal("")
    if policy is OfflinePolicy.SKIP:
        absent = int(state_at_creation(policy, online=False))
        queued = case((agents.c.online, QUEUED), else_=absent)
        reason = case((agents.c.online, ""), else_=OFFLINE_AT_CREATION)
    row = {
        "batch_id": batch.batch_id,
        **new_row(batch.new_task, batch.creator, batch.create_time, due, await work.revision()),
        "state_time": now,
        "update_time": now,
    }
    source = select(
        (literal(f"{batch.batch_id}.") + slice_.c.agent_id).label("task_id"),
        slice_.c.agent_id,
        queued.label("state"),
        reason.label("state_reason"),
        *(literal(value, tasks.c[name].type).label(name) for name, value in row.items()),
    ).join_from(slice_, agents, agents.c.agent_id == slice_.c.agent_id)
    columns = ["task_id", "agent_id", "state", "state_reason", *row]
    statement = insert(tasks).from_select(columns, source).returning(tasks.c.agent_id, tasks.c.state)
    return (await work.connection.execute(statement)).all()


async def _supersede(work: UnitOfWork, batch: BatchRecord, slice_: Subquery, now: int) -> None:
    """End what a slice's tasks take the place of, and those of its tasks that came too late themselves.

    A batch is as old as its creation, whenever its slices come.
    """
    other = tasks.alias()
    own_id = literal(f"{batch.batch_id}.") + tasks.c.agent_id
    key = literal(batch.new_task.options.supersede_key)
    has_later = exists().where(
        other.c.agent_id == tasks.c.agent_id,
        other.c.supersede_key == key,
        other.c.create_time > batch.create_time,
    )
    is_older = and_(tasks.c.task_id != own_id, tasks.c.create_time <= batch.create_time)
    await work.connection.execute(
        update(tasks)
        .where(
            tasks.c.agent_id.in_(select(slice_.c.agent_id)),
            tasks.c.supersede_key == key,
            IS_OPEN,
            tasks.c.superseded.is_(False),
            or_(is_older, and_(tasks.c.task_id == own_id, has_later)),
        )
        .values(**superseded_values),
        {"at": now, "in_revision": await work.revision()},
    )


async def batch_to_cancel(work: UnitOfWork, batch_id: str) -> BatchRecord | None:
    """Return a batch inside the transaction that cancels it: no slice of it is made meanwhile."""
    found = select(task_batches).where(task_batches.c.batch_id == batch_id).with_for_update()
    row = (await work.connection.execute(found)).first()
    return None if row is None else record(row)


async def end_batch(work: UnitOfWork, batch_id: str) -> None:
    """Cancel a batch: no further task of it is made."""
    await work.connection.execute(
        update(task_batches)
        .where(task_batches.c.batch_id == batch_id)
        .values(state=int(BatchState.CANCELLED))
    )
    await work.connection.execute(delete(task_batch_targets).where(task_batch_targets.c.batch_id == batch_id))


async def open_tasks(work: UnitOfWork, batch_id: str) -> Sequence[str]:
    """Return the ids of a batch's tasks that are to be cancelled: open, and not asked to stop yet."""
    found = select(tasks.c.task_id).where(tasks.c.batch_id == batch_id, _to_cancel())
    return (await work.connection.execute(found)).scalars().all()


def _to_cancel() -> ColumnElement[bool]:
    return and_(IS_OPEN, tasks.c.cancel_requested.is_(False))


async def cancel_tasks(work: UnitOfWork, task_ids: Sequence[str], reason: str, now: int) -> Sequence[Any]:
    """Cancel those of ``task_ids`` that are still open: a waiting one ends, one that an agent has is to stop.

    Returns (agent_id, state) of each as it is then.
    """
    waits = tasks.c.state == QUEUED
    statement = (
        update(tasks)
        .where(tasks.c.task_id.in_(task_ids), _to_cancel())
        .values(
            state=case((waits, CANCELLED), else_=tasks.c.state),
            state_time=case((waits, now), else_=tasks.c.state_time),
            state_reason=case((waits, reason), else_=tasks.c.state_reason),
            cancel_requested=~waits,
            update_time=now,
            revision=await work.revision(),
        )
        .returning(tasks.c.agent_id, tasks.c.state)
    )
    rows = (await work.connection.execute(statement)).all()
    await insert_cancel_requested(work, task_ids, reason, now)
    work.before_commit(insert_unattempted, [(TaskState.CANCELLED, now)])
    return rows
