"""Making tasks one by one, and what makes of all tasks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, case, insert, select, update

from controlplane.storage.prepared import Prepared, each, listed
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.operations import Create
from controlplane.tasks.records import Due, NewTask, Options, TaskRecord, Window
from controlplane.tasks.rules import Event, OfflinePolicy, TaskState, transition
from controlplane.tasks.store.ledger import insert_unattempted
from controlplane.tasks.store.tables import IS_OPEN, task_requests, tasks

QUEUED = int(TaskState.QUEUED)
SUPERSEDED = int(transition(TaskState.QUEUED, Event.SUPERSEDE))
OFFLINE_AT_CREATION = "skipped: its agent was not online when it was created"
SUPERSEDED_BY_LATER = "superseded: a later task of its key was created"

DELIVERY_COLUMNS = (
    *("priority", "queue_time", "run_limit", "idempotent", "max_attempts"),
    *("offline_policy", "supersede_key", "window_cron", "window_zone", "window_duration"),
)
"""How tasks are delivered: columns that tasks and batches have alike."""


def delivery(options: Options) -> dict[str, Any]:
    """Return the columns of options."""
    window = options.window
    return {
        "priority": options.priority,
        "queue_time": options.queue_time,
        "run_limit": options.run_limit,
        "idempotent": options.idempotent,
        "max_attempts": options.max_attempts,
        "offline_policy": int(options.offline),
        "supersede_key": options.supersede_key or None,
        "window_cron": window.cron if window else None,
        "window_zone": window.zone if window else None,
        "window_duration": window.duration if window else None,
    }


def options_of(row: Any) -> Options:
    """Return the options of a row that has the columns ``DELIVERY_COLUMNS``."""
    window = None
    if row.window_cron is not None:
        window = Window(row.window_cron, row.window_zone, row.window_duration)
    return Options(
        row.priority,
        row.queue_time,
        row.run_limit,
        bool(row.idempotent),
        row.max_attempts,
        OfflinePolicy(row.offline_policy),
        row.supersede_key or "",
        window,
    )


def new_row(new_task: NewTask, creator: str, created: int, due: Due, revision: int) -> dict[str, Any]:
    """Return the columns of a task that is created now, except its names, its state and its spec."""
    return {
        "kind": new_task.kind,
        **delivery(new_task.options),
        "not_before": due.not_before,
        "window_end": due.window_end,
        "creator": creator,
        "create_time": created,
        "expire_time": created + new_task.options.queue_time,
        "revision": revision,
    }


_INSERT_TASK = Prepared(
    insert(tasks),
    (
        "task_id",
        "agent_id",
        "spec",
        "kind",
        *DELIVERY_COLUMNS,
        *("state", "state_time", "state_reason", "not_before", "window_end", "creator", "create_time"),
        *("expire_time", "update_time", "revision"),
    ),
)
superseded_values: Mapping[str, Any] = {
    "state": case((tasks.c.state == QUEUED, SUPERSEDED), else_=tasks.c.state),
    "state_time": case((tasks.c.state == QUEUED, bindparam("at")), else_=tasks.c.state_time),
    "state_reason": case((tasks.c.state == QUEUED, SUPERSEDED_BY_LATER), else_=tasks.c.state_reason),
    "superseded": True,
    "update_time": bindparam("at"),
    "revision": bindparam("in_revision"),
}
"""What a later task of its key makes of an open one; what its agent has ends when it would wait again."""

_SUPERSEDE = Prepared(
    update(tasks)
    .where(
        tasks.c.agent_id == bindparam("of_agent"),
        tasks.c.supersede_key == bindparam("of_key"),
        tasks.c.task_id != bindparam("by"),
        IS_OPEN,
        tasks.c.superseded.is_(False),
    )
    .values(**superseded_values)
)
_INSERT_REQUEST = Prepared(
    insert(task_requests), ("creator", "request_id", "digest", "created_id", "create_time")
)
_FIND_REQUESTS = Prepared(
    select(task_requests).where(
        task_requests.c.creator.in_(each("creators")), task_requests.c.request_id.in_(each("request_ids"))
    )
)


async def insert_tasks(work: UnitOfWork, made: Sequence[tuple[Create, TaskRecord]]) -> None:
    """Insert tasks in the state that was decided, and end what they take the place of."""
    revision = await work.revision()
    rows = []
    latest: dict[tuple[str, str], Create] = {}
    for one, task in made:
        rows.append(
            {
                "task_id": one.task_id,
                "agent_id": one.agent_id,
                "spec": one.new_task.spec,
                "state": int(task.state),
                "state_time": one.now,
                "state_reason": task.state_reason,
                "update_time": one.now,
                **new_row(one.new_task, one.creator, one.now, one.due, revision),
            }
        )
        if one.new_task.options.supersede_key:
            latest[one.agent_id, one.new_task.options.supersede_key] = one
    await _INSERT_TASK.run_each(work.connection, rows)
    if latest:
        await _SUPERSEDE.run_each(
            work.connection,
            [
                {
                    "of_agent": agent_id,
                    "of_key": key,
                    "by": one.task_id,
                    "at": one.now,
                    "in_revision": revision,
                }
                for (agent_id, key), one in latest.items()
            ],
        )
        work.before_commit(insert_unattempted, [(TaskState.SUPERSEDED, made[-1][0].now)])


async def find_requests(
    work: UnitOfWork, calls: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[bytes, str]]:
    """Return (digest, created id) of create calls that were made before, by (creator, request_id)."""
    named = [(creator, request_id) for creator, request_id in calls if request_id]
    if not named:
        return {}
    creators, request_ids = zip(*named, strict=True)
    rows = await _FIND_REQUESTS.rows(
        work.connection, {"creators": listed(set(creators)), "request_ids": listed(request_ids)}
    )
    return {(row.creator, row.request_id): (row.digest, row.created_id) for row in rows}


async def insert_requests(work: UnitOfWork, made: Sequence[Create]) -> None:
    """Remember which calls made these tasks."""
    if made:
        await _INSERT_REQUEST.run_each(
            work.connection,
            [_request(one.creator, one.request_id, one.digest, one.task_id, one.now) for one in made],
        )


async def insert_request(
    work: UnitOfWork, creator: str, request_id: str, digest: bytes, created_id: str, now: int
) -> None:
    """Remember what a create call made."""
    await _INSERT_REQUEST.run(work.connection, _request(creator, request_id, digest, created_id, now))


def _request(creator: str, request_id: str, digest: bytes, created_id: str, now: int) -> dict[str, Any]:
    return {
        "creator": creator,
        "request_id": request_id,
        "digest": digest,
        "created_id": created_id,
        "create_time": now,
    }


async def forget_requests(work: UnitOfWork, before: int) -> int:
    """Forget create calls from before an instant; returns how many."""
    result = await work.connection.execute(task_requests.delete().where(task_requests.c.create_time < before))
    return result.rowcount
