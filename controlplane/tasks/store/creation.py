"""Making tasks, one or for every agent that a selector matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import insert, literal, select
from sqlalchemy.sql.selectable import Select

from controlplane.storage.prepared import Prepared, each, listed
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.operations import Create
from controlplane.tasks.records import NewTask
from controlplane.tasks.rules import TaskState
from controlplane.tasks.store.ledger import insert_created
from controlplane.tasks.store.tables import task_batches, task_requests, tasks


def _common(new_task: NewTask, creator: str, now: int, revision: int) -> dict[str, Any]:
    options = new_task.options
    return {
        "kind": new_task.kind,
        **_delivery(new_task),
        "state": int(TaskState.QUEUED),
        "state_time": now,
        "not_before": now,
        "creator": creator,
        "create_time": now,
        "expire_time": now + options.queue_time,
        "update_time": now,
        "revision": revision,
    }


def _delivery(new_task: NewTask) -> dict[str, Any]:
    options = new_task.options
    return {
        "priority": options.priority,
        "queue_time": options.queue_time,
        "run_limit": options.run_limit,
        "idempotent": options.idempotent,
        "max_attempts": options.max_attempts,
    }


_INSERT_TASK = Prepared(
    insert(tasks),
    (
        "task_id",
        "agent_id",
        "spec",
        *("kind", "priority", "queue_time", "run_limit", "idempotent", "max_attempts"),
        *("state", "state_time", "not_before", "creator", "create_time", "expire_time", "update_time"),
        "revision",
    ),
)
_INSERT_REQUEST = Prepared(
    insert(task_requests), ("creator", "request_id", "digest", "created_id", "create_time")
)
_FIND_REQUESTS = Prepared(
    select(task_requests).where(
        task_requests.c.creator.in_(each("creators")), task_requests.c.request_id.in_(each("request_ids"))
    )
)


async def insert_tasks(work: UnitOfWork, made: Sequence[Create]) -> None:
    """Insert queued tasks."""
    revision = await work.revision()
    rows = [
        {
            "task_id": one.task_id,
            "agent_id": one.agent_id,
            "spec": one.new_task.spec,
            **_common(one.new_task, one.creator, one.now, revision),
        }
        for one in made
    ]
    await _INSERT_TASK.run_each(work.connection, rows)


async def insert_batch(
    work: UnitOfWork,
    batch_id: str,
    selector: str,
    agents: Select[str],
    new_task: NewTask,
    creator: str,
    now: int,
) -> list[str]:
    """Insert a batch and a queued task for each agent id that ``agents`` selects; returns those ids.

    One statement makes all tasks, so the selector is evaluated at one instant. A
    task's id is made of the batch's and the agent's, hence unique without a
    generator that each backend would have to bring. The spec stays with the batch:
    its tasks have none of their own.
    """
    batch = {
        "batch_id": batch_id,
        "selector": selector,
        "kind": new_task.kind,
        "spec": new_task.spec,
        **_delivery(new_task),
        "task_count": 0,
        "creator": creator,
        "create_time": now,
    }
    await work.connection.execute(insert(task_batches).values(batch))
    chosen = agents.subquery()
    agent_id = chosen.c[0]
    row = {"batch_id": batch_id, **_common(new_task, creator, now, await work.revision())}
    source = select(
        (literal(f"{batch_id}.") + agent_id).label("task_id"),
        agent_id.label("agent_id"),
        *(literal(value, tasks.c[name].type).label(name) for name, value in row.items()),
    )
    statement = insert(tasks).from_select(["task_id", "agent_id", *row], source).returning(tasks.c.agent_id)
    agent_ids = list((await work.connection.execute(statement)).scalars())
    await insert_created(work, batch_id, now)
    await work.connection.execute(
        task_batches.update().where(task_batches.c.batch_id == batch_id).values(task_count=len(agent_ids))
    )
    return agent_ids


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
