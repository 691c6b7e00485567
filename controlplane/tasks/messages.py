"""The contract's forms of what the tasks room has, for its handler and for those of rooms that make tasks."""

from __future__ import annotations

from datetime import timedelta

from fleetwright.v1 import task_service_pb2 as pb2
from fleetwright.v1 import work_pb2
from google.protobuf.duration_pb2 import Duration

from controlplane import redaction
from controlplane.clock import duration_micros
from controlplane.tasks import rules
from controlplane.tasks.batches import Counts
from controlplane.tasks.records import (
    AttemptRecord,
    BatchRecord,
    Install,
    NewTask,
    Options,
    TaskRecord,
    Window,
)
from controlplane.tasks.rules import OfflinePolicy
from controlplane.transport.messages import duration, timestamp

INSTALL = "install"
"""The kind of tasks that install a package; the room of packaging makes and follows them."""


def new_task(spec: work_pb2.TaskSpec, options: pb2.TaskOptions) -> NewTask:
    """Return the room's form of a request's spec and options, defaults filled in."""
    wire = spec.SerializeToString(deterministic=True)
    return NewTask(str(spec.WhichOneof("kind")), wire, options_of(options))


def install_task(install: Install, options: Options) -> NewTask:
    """Return the task that installs a package."""
    spec = work_pb2.InstallSpec(
        package=f"packages/{install.package}",
        target_path=install.target_path,
        package_name=install.package_name,
        version=install.version,
    )
    return NewTask(INSTALL, work_pb2.TaskSpec(install=spec).SerializeToString(deterministic=True), options)


def install_of(spec: bytes) -> Install:
    """Return which package a spec in wire form installs."""
    install = work_pb2.TaskSpec.FromString(spec).install
    digest = install.package.removeprefix("packages/")
    return Install(digest, install.target_path, install.package_name, install.version)


def options_of(options: pb2.TaskOptions) -> Options:
    """Return the room's form of a request's options, defaults filled in."""
    return Options(
        priority=options.priority,
        queue_time=_micros(options, "queue_time", rules.DEFAULT_QUEUE_TIME),
        run_limit=_micros(options, "run_limit", rules.DEFAULT_RUN_LIMIT),
        idempotent=options.idempotent,
        max_attempts=options.max_attempts or rules.DEFAULT_MAX_ATTEMPTS,
        offline=OfflinePolicy(options.offline_policy or OfflinePolicy.QUEUE),
        supersede_key=options.supersede_key,
        window=_window(options),
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


def attempt_message(attempt: AttemptRecord) -> pb2.Attempt:
    """Return the contract's form of an attempt."""
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


def batch_message(batch: BatchRecord, counts: Counts = ()) -> pb2.TaskBatch:
    """Return the contract's form of a batch."""
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
