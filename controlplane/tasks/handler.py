"""TaskService of the contract: proto in, service, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import agent_registry_service_pb2 as registry_pb2
from fleetwright.v1 import task_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import work_pb2

from controlplane.errors import invalid
from controlplane.storage.watching import Change
from controlplane.tasks.messages import (
    INSTALL,
    attempt_message,
    batch_message,
    new_task,
    task_message,
)
from controlplane.tasks.records import Chosen, NewTask
from controlplane.tasks.service import TasksService
from controlplane.transport.context import current_caller

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


def _asked(spec: work_pb2.TaskSpec, options: pb2.TaskOptions) -> NewTask:
    """Return what a caller asks for by itself. Raises ``InvalidArgument`` for what has a door of its own."""
    if spec.WhichOneof("kind") == INSTALL:
        raise invalid(
            "spec.install",
            "packages are deployed by PackagingService.DeployPackage (`fleetwright packages deploy`), which "
            "sees to it that they are released",
        )
    return new_task(spec, options)


def _id(name: str) -> str:
    return name.partition("/")[2]


class TaskHandler(pb2_grpc.TaskServiceServicer):
    """Serves TaskService."""

    def __init__(self, service: TasksService) -> None:
        self._service = service

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_TaskServiceServicer_to_server(self, server)

    async def CreateTask(self, request: pb2.CreateTaskRequest, context: Context) -> pb2.CreateTaskResponse:
        """Queue work for one agent."""
        task = await self._service.create(
            current_caller(),
            _id(request.agent),
            _asked(request.spec, request.options),
            request.request_id,
        )
        return pb2.CreateTaskResponse(task=task_message(task))

    async def CreateTaskBatch(
        self, request: pb2.CreateTaskBatchRequest, context: Context
    ) -> pb2.CreateTaskBatchResponse:
        """Queue work for every agent that a selector matches."""
        batch = await self._service.batches.create(
            current_caller(),
            Chosen(request.selector, request.percentage or 100, request.seed),
            _asked(request.spec, request.options),
            request.request_id,
            allow_empty=request.allow_empty,
        )
        return pb2.CreateTaskBatchResponse(batch=batch_message(batch))

    async def GetTask(self, request: pb2.GetTaskRequest, context: Context) -> pb2.GetTaskResponse:
        """Read one task with its attempts."""
        task_id = _id(request.name)
        message = task_message(await self._service.get(task_id))
        message.attempts.extend(attempt_message(attempt) for attempt in await self._service.attempts(task_id))
        return pb2.GetTaskResponse(task=message)

    async def GetTaskBatch(
        self, request: pb2.GetTaskBatchRequest, context: Context
    ) -> pb2.GetTaskBatchResponse:
        """Read one batch with its counts."""
        return pb2.GetTaskBatchResponse(
            batch=batch_message(*await self._service.batches.get(_id(request.name)))
        )

    async def ListTasks(self, request: pb2.ListTasksRequest, context: Context) -> pb2.ListTasksResponse:
        """Read a page of tasks."""
        page = await self._service.list_tasks(request.filter, request.page_size, request.page_token)
        return pb2.ListTasksResponse(
            tasks=[task_message(task) for task in page.tasks],
            next_page_token=page.next_page_token,
            total_size=page.total,
        )

    async def CancelTask(self, request: pb2.CancelTaskRequest, context: Context) -> pb2.CancelTaskResponse:
        """End a task."""
        task = await self._service.cancel(current_caller(), _id(request.name))
        return pb2.CancelTaskResponse(task=task_message(task))

    async def CancelTaskBatch(
        self, request: pb2.CancelTaskBatchRequest, context: Context
    ) -> pb2.CancelTaskBatchResponse:
        """End a batch with its tasks."""
        batch, counts, done = await self._service.batches.cancel(current_caller(), _id(request.name))
        return pb2.CancelTaskBatchResponse(
            batch=batch_message(batch, counts), cancelled_count=done.cancelled, asked_count=done.asked
        )

    async def ReplayTask(self, request: pb2.ReplayTaskRequest, context: Context) -> pb2.ReplayTaskResponse:
        """Create a task anew."""
        made = await self._service.replays.replay(current_caller(), _id(request.name), request.request_id)
        return pb2.ReplayTaskResponse(task=task_message(await self._service.get(made)))

    async def ReplayTasks(self, request: pb2.ReplayTasksRequest, context: Context) -> pb2.ReplayTasksResponse:
        """Create anew what matches."""
        done = await self._service.replays.replay_matching(
            current_caller(), request.filter, request.request_id
        )
        return pb2.ReplayTasksResponse(replayed_count=done.count, more=done.more)

    async def WatchTasks(
        self, request: pb2.WatchTasksRequest, context: Context
    ) -> AsyncIterator[pb2.WatchTasksResponse]:
        """Send tasks as they are and as they change."""
        async with aclosing(self._service.watch(request.filter, request.resume_token)) as changes:
            async for change, task, token in changes:
                response = pb2.WatchTasksResponse(
                    change_type=registry_pb2.ChangeType.ValueType(change.value), resume_token=token
                )
                if change is Change.REMOVED and task is not None:
                    response.task.name = f"tasks/{task.task_id}"
                elif task is not None:
                    response.task.CopyFrom(task_message(task))
                yield response

    async def ReadTaskOutput(
        self, request: pb2.ReadTaskOutputRequest, context: Context
    ) -> AsyncIterator[pb2.ReadTaskOutputResponse]:
        """Send a task's output in order."""
        async with aclosing(self._service.output(_id(request.name), int(request.stream))) as chunks:
            async for chunk in chunks:
                yield pb2.ReadTaskOutputResponse(
                    stream=work_pb2.OutputStream.ValueType(chunk.stream),
                    offset=chunk.offset,
                    data=chunk.data,
                )
