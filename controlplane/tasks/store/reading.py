"""Questions about tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.filtering import (
    BooleanField,
    BoundFilter,
    EnumField,
    FilterSchema,
    IntegerField,
    TextField,
    TimestampField,
)
from controlplane.storage.filters import compile_filter
from controlplane.storage.watching import Cursor, Seen
from controlplane.tasks.records import AttemptRecord, BatchRecord, Chunk, Due, TaskRecord
from controlplane.tasks.rules import AttemptState, TaskState
from controlplane.tasks.store.creation import options_of
from controlplane.tasks.store.expansion import record
from controlplane.tasks.store.tables import (
    IS_OPEN,
    OF_BATCH,
    SPEC,
    task_attempts,
    task_batches,
    task_output,
    tasks,
)

FILTER = FilterSchema(
    {
        "task_id": TextField(),
        "agent_id": TextField(),
        "batch_id": TextField(),
        "kind": TextField(),
        "state": EnumField({state.name: int(state) for state in TaskState}, prefix="TASK_STATE_"),
        "state_time": TimestampField(),
        "priority": IntegerField(),
        "attempt_count": IntegerField(),
        "cancel_requested": BooleanField(),
        "creator": TextField(),
        "create_time": TimestampField(),
        "expire_time": TimestampField(),
        "update_time": TimestampField(),
        "replay_of": TextField(),
        "supersede_key": TextField(),
    }
)
"""What a filter over tasks may name; every field is a column of the same name."""


def condition(chosen: BoundFilter) -> ColumnElement[bool]:
    """Return the condition of a filter over tasks."""
    return compile_filter(chosen, {name: tasks.c[name] for name in FILTER.fields})


def _record(row: Row[*tuple[Any, ...]]) -> TaskRecord:
    return TaskRecord(
        task_id=row.task_id,
        agent_id=row.agent_id,
        batch_id=row.batch_id,
        kind=row.kind,
        spec=row.spec,
        options=options_of(row),
        state=TaskState(row.state),
        state_time=row.state_time,
        state_reason=row.state_reason,
        cancel_requested=bool(row.cancel_requested),
        attempt_count=row.attempt_count,
        progress_percent=row.progress_percent,
        progress_message=row.progress_message,
        result=row.shown_result,
        creator=row.creator,
        create_time=row.create_time,
        expire_time=row.expire_time,
        update_time=row.update_time,
        revision=row.revision,
        due=Due(row.not_before, row.window_end),
        replay_of=row.replay_of,
    )


_decided = tasks.outerjoin(task_attempts, task_attempts.c.attempt_id == tasks.c.decided_attempt_id).outerjoin(
    task_batches, OF_BATCH
)
_SHOWN = (*(column for column in tasks.c if column is not tasks.c.spec), SPEC)
_WHOLE = select(*_SHOWN, task_attempts.c.result.label("shown_result")).select_from(_decided)
_SUMMARY = select(*_SHOWN, task_attempts.c.summary.label("shown_result")).select_from(_decided)


async def task(connection: AsyncConnection, task_id: str) -> TaskRecord | None:
    """Return one task with its whole result, or None."""
    row = (await connection.execute(_WHOLE.where(tasks.c.task_id == task_id))).first()
    return None if row is None else _record(row)


async def attempts_of(connection: AsyncConnection, task_id: str) -> list[AttemptRecord]:
    """Return a task's attempts, oldest first."""
    rows = await connection.execute(
        select(task_attempts).where(task_attempts.c.task_id == task_id).order_by(task_attempts.c.number)
    )
    return [
        AttemptRecord(
            row.attempt_id,
            row.number,
            AttemptState(row.state),
            row.lease_time,
            row.accept_time,
            row.run_deadline,
            row.end_time,
            row.session_epoch,
            row.summary,
        )
        for row in rows
    ]


async def page(
    connection: AsyncConnection,
    chosen: BoundFilter,
    after: tuple[int, str] | None,
    limit: int,
) -> list[TaskRecord]:
    """Return tasks, newest first, after the (create_time, task_id) of the former page's last one."""
    newest = (tasks.c.create_time.desc(), tasks.c.task_id)
    # All tasks of a batch have one create_time, so SQLite sorts them: ids alone, not each with its spec.
    listed = select(tasks.c.task_id).where(condition(chosen)).order_by(*newest).limit(limit)
    if after is not None:
        create_time, task_id = after
        listed = listed.where(
            or_(
                tasks.c.create_time < create_time,
                and_(tasks.c.create_time == create_time, tasks.c.task_id > task_id),
            )
        )
    rows = await connection.execute(_SUMMARY.where(tasks.c.task_id.in_(listed)).order_by(*newest))
    return [_record(row) for row in rows]


async def count(connection: AsyncConnection, chosen: BoundFilter) -> int:
    """Return how many tasks match."""
    statement = select(func.count()).select_from(tasks).where(condition(chosen))
    return int((await connection.execute(statement)).scalar_one())


async def changed(
    connection: AsyncConnection, chosen: BoundFilter, after: Cursor, limit: int
) -> Sequence[Seen[TaskRecord]]:
    """Return tasks in the order of commits after (revision, task_id), each with whether it matches."""
    rows = await connection.execute(
        _SUMMARY.add_columns(condition(chosen).label("matches"))
        .where(tuple_(tasks.c.revision, tasks.c.task_id) > tuple_(*after))
        .order_by(tasks.c.revision, tasks.c.task_id)
        .limit(limit)
    )
    return [Seen(_record(row), (row.revision, row.task_id), bool(row.matches)) for row in rows]


async def batch(connection: AsyncConnection, batch_id: str) -> BatchRecord | None:
    """Return one batch, or None."""
    row = (await connection.execute(select(task_batches).where(task_batches.c.batch_id == batch_id))).first()
    return None if row is None else record(row)


async def batch_counts(connection: AsyncConnection, batch_id: str) -> list[tuple[TaskState, int]]:
    """Return how many tasks of a batch are in which state."""
    rows = await connection.execute(
        select(tasks.c.state, func.count())
        .where(tasks.c.batch_id == batch_id)
        .group_by(tasks.c.state)
        .order_by(tasks.c.state)
    )
    return [(TaskState(state), number) for state, number in rows]


async def depths(connection: AsyncConnection) -> dict[TaskState, tuple[int, int]]:
    """Return, for each open state, how many tasks are in it and when the oldest of them was created."""
    # No index has the state, for each step of a task would change it. Nobody waits for this.
    rows = await connection.execute(
        select(tasks.c.state, func.count(), func.min(tasks.c.create_time))
        .where(IS_OPEN)
        .group_by(tasks.c.state)
    )
    return {TaskState(state): (count, oldest) for state, count, oldest in rows}


async def output_attempt(connection: AsyncConnection, task_id: str) -> str | None:
    """Return the id of a task's last attempt that has output, or None."""
    row = (
        await connection.execute(
            select(task_attempts.c.attempt_id)
            .where(
                task_attempts.c.task_id == task_id,
                task_attempts.c.stdout_bytes + task_attempts.c.stderr_bytes + task_attempts.c.log_bytes > 0,
            )
            .order_by(task_attempts.c.number.desc())
            .limit(1)
        )
    ).first()
    return None if row is None else str(row.attempt_id)


async def output(
    connection: AsyncConnection, attempt_id: str, stream: int, after: int, limit: int
) -> list[tuple[int, Chunk]]:
    """Return (id, chunk) of an attempt after a chunk's id, in the order they came; stream 0 means all."""
    statement = (
        select(task_output)
        .where(task_output.c.attempt_id == attempt_id, task_output.c.id > after)
        .order_by(task_output.c.id)
        .limit(limit)
    )
    if stream:
        statement = statement.where(task_output.c.stream == stream)
    rows = await connection.execute(statement)
    return [(row.id, Chunk(row.stream, row.offset, row.data)) for row in rows]
