"""TaskService of the contract: proto in, service, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import agent_registry_service_pb2 as registry_pb2
from fleetwright.v1 import task_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import work_pb2
from google.protobuf.duration_pb2 import Duration

from controlplane import redaction
from controlplane.clock import duration_micros
from controlplane.storage.watching import Change
from controlplane.tasks import rules
from controlplane.tasks.batches import Counts
from controlplane.tasks.records import (
    AttemptRecord,
    BatchRecord,
    Chosen,
    NewTask,
    Options,
    TaskRecord,
    Window,
)
from controlplane.tasks.rules import OfflinePolicy
from controlplane.tasks.service import TasksService
from controlplane.transport.context import current_caller
from controlplane.transport.messages import duration, timestamp

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


def new_task(spec: work_pb2.TaskSpec, options: pb2.TaskOptions) -> NewTask:
    """Return the room's form of a request's spec and options, defaults filled in."""
    return NewTask(
        kind=str(spec.WhichOneof("kind")),
        spec=spec.SerializeToString(deterministic=True),
        options=Options(
            priority=options.priority,
            queue_time=_micros(options, "queue_time", rules.DEFAULT_QUEUE_TIME),
            run_limit=_micros(options, "run_limit", rules.DEFAULT_RUN_LIMIT),
            idempotent=options.idempotent,
            max_attempts=options.max_attempts or rules.DEFAULT_MAX_ATTEMPTS,
            offline=OfflinePolicy(options.offline_policy or OfflinePolicy.QUEUE),
            supersede_key=options.supersede_key,
            window=_window(options),
        ),
    )


def _window(options: pb2.TaskOptions) -> Window | None:
    if not options.HasField("window"):
        return None
    window = options.window
    return Window(window.cron, window.time_zone, window.duration.ToMicroseconds())


def _micros(options: pb2.TaskOptions, field: str, default: timedelta) -> int:
    if not options.HasField(field):  # type: ignore[arg-type]  # the stub lists the names as literals
        return duration_micros(default)
    duration: Duration = getattr(options, field)
    return duration.ToMicroseconds()


def _options(options: Options) -> pb2.TaskOptions:
    return pb2.TaskOptions(
        priority=options.priority,
        queue_time=duration(options.queue_time),
        run_limit=duration(options.run_limit),
        idempotent=options.idempotent,
        max_attempts=options.max_attempts,
        offline_policy=pb2.OfflinePolicy.ValueType(int(options.offline)),
        supersede_key=options.supersede_key,
        window=_window_message(options.window),
    )


def _window_message(window: Window | None) -> pb2.MaintenanceWindow | None:
    if window is None:
        return None
    return pb2.MaintenanceWindow(cron=window.cron, time_zone=window.zone, duration=duration(window.duration))


def _spec(wire: bytes) -> work_pb2.TaskSpec:
    """Return a spec as administrators read it: its secrets are for the agent alone."""
    spec = work_pb2.TaskSpec.FromString(wire)
    if spec.HasField("script"):
        script = spec.script
        script.arguments[:] = redaction.arguments(script.arguments)
        # A list: protobuf's map leaves some out while it is changed.
        for name in list(script.environment):
            script.environment[name] = redaction.REDACTED
    return spec


def _result(wire: bytes | None) -> work_pb2.AttemptResult | None:
    if wire is None:
        return None
    result = work_pb2.AttemptResult.FromString(wire)
    result.reason = redaction.text(result.reason)
    return result


def task_message(task: TaskRecord) -> pb2.Task:
    """Return the contract's form of a task."""
    return pb2.Task(
        name=f"tasks/{task.task_id}",
        agent=f"agents/{task.agent_id}",
        batch=f"taskBatches/{task.batch_id}" if task.batch_id else "",
        kind=task.kind,
        spec=_spec(task.spec),
        options=_options(task.options),
        state=pb2.TaskState.ValueType(int(task.state)),
        state_time=timestamp(task.state_time),
        state_reason=redaction.text(task.state_reason),
        cancel_requested=task.cancel_requested,
        attempt_count=task.attempt_count,
        progress_percent=task.progress_percent,
        progress_message=redaction.text(task.progress_message),
        result=_result(task.result),
        creator=task.creator,
        create_time=timestamp(task.create_time),
        expire_time=timestamp(task.expire_time),
        update_time=timestamp(task.update_time),
        etag=f"{task.revision:x}",
        replay_of=f"tasks/{task.replay_of}" if task.replay_of else "",
        due_time=timestamp(task.due.not_before),
        window_end_time=timestamp(task.due.window_end),
    )


def _attempt_message(attempt: AttemptRecord) -> pb2.Attempt:
    return pb2.Attempt(
        attempt_id=attempt.attempt_id,
        number=attempt.number,
        state=pb2.AttemptState.ValueType(int(attempt.state)),
        lease_time=timestamp(attempt.lease_time),
        accept_time=timestamp(attempt.accept_time),
        run_deadline=timestamp(attempt.run_deadline),
        end_time=timestamp(attempt.end_time),
        session_epoch=attempt.session_epoch,
        result=_result(attempt.result),
    )


def _batch_message(batch: BatchRecord, counts: Counts = ()) -> pb2.TaskBatch:
    return pb2.TaskBatch(
        name=f"taskBatches/{batch.batch_id}",
        selector=batch.chosen.selector,
        percentage=batch.chosen.percentage,
        seed=batch.chosen.seed,
        state=pb2.TaskBatchState.ValueType(int(batch.state)),
        target_count=batch.target_count,
        expanded_count=batch.expanded_count,
        kind=batch.new_task.kind,
        spec=_spec(batch.new_task.spec),
        options=_options(batch.new_task.options),
        task_count=batch.task_count,
        creator=batch.creator,
        create_time=timestamp(batch.create_time),
        state_counts=[
            pb2.TaskStateCount(state=pb2.TaskState.ValueType(int(state)), count=number)
            for state, number in counts
        ],
    )


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
            new_task(request.spec, request.options),
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
            new_task(request.spec, request.options),
            request.request_id,
            allow_empty=request.allow_empty,
        )
        return pb2.CreateTaskBatchResponse(batch=_batch_message(batch))

    async def GetTask(self, request: pb2.GetTaskRequest, context: Context) -> pb2.GetTaskResponse:
        """Read one task with its attempts."""
        task_id = _id(request.name)
        message = task_message(await self._service.get(task_id))
        message.attempts.extend(
            _attempt_message(attempt) for attempt in await self._service.attempts(task_id)
        )
        return pb2.GetTaskResponse(task=message)

    async def GetTaskBatch(
        self, request: pb2.GetTaskBatchRequest, context: Context
    ) -> pb2.GetTaskBatchResponse:
        """Read one batch with its counts."""
        return pb2.GetTaskBatchResponse(
            batch=_batch_message(*await self._service.batches.get(_id(request.name)))
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
            batch=_batch_message(batch, counts), cancelled_count=done.cancelled, asked_count=done.asked
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
