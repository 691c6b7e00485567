"""Applies what administrators create one by one: many calls at once share a commit (``docs/decisions``)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from controlplane.agents.service import AgentsService, Presence
from controlplane.callers import Caller
from controlplane.errors import InvalidArgument, NotFound, ServiceError, invalid
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.ledger import noting
from controlplane.tasks.operations import Create, Created
from controlplane.tasks.records import TaskRecord
from controlplane.tasks.rules import TaskState, state_at_creation
from controlplane.tasks.store import creation


def reused(request_id: str) -> InvalidArgument:
    """Return the refusal of a request_id that stands for another content."""
    return invalid(
        "request_id",
        f"{request_id!r} was used for another content; use a new one for each request",
        reason="REQUEST_ID_REUSED",
    )


def unknown(collection: str, ident: str) -> NotFound:
    """Return the refusal of a name that nothing has."""
    return NotFound(
        "TASK_UNKNOWN", f"name: there is no {collection}/{ident}; list them to see which there are"
    )


def check_request_id(request_id: str) -> None:
    """Raise ``InvalidArgument`` for a request_id that no database keeps."""
    # SQLite ends a text of JSON there, so that the first call would not be found; PostgreSQL keeps none.
    if "\0" in request_id:
        raise invalid("request_id", "has a NUL character; use a UUID")


def digest_of(*content: object) -> bytes:
    """Return the digest of what a call with a request_id asks for."""
    return hashlib.sha256(repr(content).encode()).digest()


async def made_before(work: UnitOfWork, caller: Caller, request_id: str, digest: bytes) -> str | None:
    """Return what the same call made before, or None.

    Raises ``InvalidArgument`` REQUEST_ID_REUSED where it was another call.
    """
    call = caller.spiffe_id, request_id
    found = (await creation.find_requests(work, [call])).get(call)
    if found is None:
        return None
    known_digest, created_id = found
    if known_digest != digest:
        raise reused(request_id)
    return created_id


class Creations:
    """The applier of Create. ``announce`` is told of each agent that gets work, before the commit."""

    def __init__(self, agents: AgentsService, announce: Callable[[UnitOfWork, Sequence[str]], None]) -> None:
        self._agents = agents
        self._announce = announce

    async def create(
        self, work: UnitOfWork, operations: Sequence[Create]
    ) -> Sequence[Created | ServiceError]:
        """Queue each task, unless its call was made before or its agent is unknown."""
        made = await creation.find_requests(
            work, {(operation.creator, operation.request_id) for operation in operations}
        )
        presences = await self._agents.presences(
            work.connection,
            {operation.agent_id for operation in operations},
            field="agent",
            # Of two tasks of one key, one must see the other.
            lock=any(operation.new_task.options.supersede_key for operation in operations),
        )
        outcomes: list[Created | ServiceError] = []
        new: list[tuple[Create, TaskRecord]] = []
        for operation in operations:
            before = made.get((operation.creator, operation.request_id))
            if before is not None:
                digest, task_id = before
                same = digest == operation.digest
                outcomes.append(Created(task_id) if same else reused(operation.request_id))
                continue
            presence = presences[operation.agent_id]
            if isinstance(presence, ServiceError):
                outcomes.append(presence)
                continue
            task = _created(operation, await work.revision(), online=presence is Presence.ONLINE)
            new.append((operation, task))
            outcomes.append(Created(operation.task_id, task))
        if new:
            await creation.insert_tasks(work, new)
            noting.created(work, [operation for operation, _ in new])
            if any(task.state is TaskState.SKIPPED for _, task in new):
                noting.ended(work, TaskState.SKIPPED, new[-1][0].now)
            await creation.insert_requests(work, [operation for operation, _ in new if operation.request_id])
            self._announce(work, [task.agent_id for _, task in new if task.state is TaskState.QUEUED])
        return outcomes


def _created(operation: Create, revision: int, *, online: bool) -> TaskRecord:
    """Return the task as it was committed; it may have gone on since."""
    new_task, now = operation.new_task, operation.now
    state = state_at_creation(new_task.options.offline, online=online)
    return TaskRecord(
        task_id=operation.task_id,
        agent_id=operation.agent_id,
        batch_id=None,
        kind=new_task.kind,
        spec=new_task.spec,
        options=new_task.options,
        state=state,
        state_time=now,
        state_reason=creation.OFFLINE_AT_CREATION if state is TaskState.SKIPPED else "",
        cancel_requested=False,
        attempt_count=0,
        progress_percent=0,
        progress_message="",
        result=None,
        creator=operation.creator,
        create_time=now,
        expire_time=now + new_task.options.queue_time,
        update_time=now,
        revision=revision,
        due=operation.due,
    )
