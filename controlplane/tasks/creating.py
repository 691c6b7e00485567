"""Applies what administrators create one by one: many calls at once share a commit (``docs/decisions``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.agents.service import AgentsService
from controlplane.errors import InvalidArgument, ServiceError, invalid
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.ledger import noting
from controlplane.tasks.operations import Create, Created
from controlplane.tasks.records import TaskRecord
from controlplane.tasks.rules import TaskState
from controlplane.tasks.store import creation


def reused(request_id: str) -> InvalidArgument:
    """Return the refusal of a request_id that stands for another content."""
    return invalid(
        "request_id",
        f"{request_id!r} was used for another content; use a new one for each request",
        reason="REQUEST_ID_REUSED",
    )


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
        unknown = await self._agents.unknown(
            work.connection, {operation.agent_id for operation in operations}, field="agent"
        )
        outcomes: list[Created | ServiceError] = []
        new: list[Create] = []
        for operation in operations:
            before = made.get((operation.creator, operation.request_id))
            if before is not None:
                digest, task_id = before
                same = digest == operation.digest
                outcomes.append(Created(task_id) if same else reused(operation.request_id))
            elif operation.agent_id in unknown:
                outcomes.append(unknown[operation.agent_id])
            else:
                new.append(operation)
                outcomes.append(Created(operation.task_id, _queued(operation, await work.revision())))
        if new:
            await creation.insert_tasks(work, new)
            noting.created(work, new)
            await creation.insert_requests(work, [operation for operation in new if operation.request_id])
            self._announce(work, [operation.agent_id for operation in new])
        return outcomes


def _queued(operation: Create, revision: int) -> TaskRecord:
    """Return the task as it was committed; it may have gone on since."""
    new_task, now = operation.new_task, operation.now
    return TaskRecord(
        task_id=operation.task_id,
        agent_id=operation.agent_id,
        batch_id=None,
        kind=new_task.kind,
        spec=new_task.spec,
        options=new_task.options,
        state=TaskState.QUEUED,
        state_time=now,
        state_reason="",
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
    )
