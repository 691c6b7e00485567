"""The room's own shapes of a task, between its store, service and handlers."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.tasks.rules import AttemptState, BatchState, OfflinePolicy, Outcome, TaskState


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance window; ``duration`` in microseconds. See ``windows``."""

    cron: str
    zone: str
    duration: int


@dataclass(frozen=True, slots=True)
class Options:
    """How a task is delivered; durations in microseconds.

    ``supersede_key`` is empty for none; it and ``window`` belong to their policies.
    """

    priority: int
    queue_time: int
    run_limit: int
    idempotent: bool
    max_attempts: int
    offline: OfflinePolicy = OfflinePolicy.QUEUE
    supersede_key: str = ""
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """From when on a task is handed out, and until when, None for no end; as instants of a task."""

    not_before: int
    window_end: int | None = None


@dataclass(frozen=True, slots=True)
class NewTask:
    """What to do, and how. ``spec`` is the contract's TaskSpec in wire form."""

    kind: str
    spec: bytes
    options: Options


@dataclass(frozen=True, slots=True)
class Install:
    """Which package an agent is to install; ``package`` is the SHA-256 of its bytes."""

    package: str
    target_path: str
    package_name: str
    version: str


@dataclass(frozen=True, slots=True)
class InstallDetail:
    """What the result of an installation says beside its outcome; ``status`` is a DeploymentStatus."""

    status: int
    reason_code: str


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What an agent said of a task, at an instant of the server's clock.

    ``status`` is the contract's DeploymentStatus, 0 where it named none. ``outcome`` is None as long as
    the attempt runs.
    """

    task_id: str
    status: int
    time: int
    outcome: Outcome | None = None
    reason: str = ""
    reason_code: str = ""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task; instants are microseconds since the Unix epoch, UTC.

    ``result`` is the contract's AttemptResult in wire form, of the attempt that
    decided the task.
    """

    task_id: str
    agent_id: str
    batch_id: str | None
    kind: str
    spec: bytes
    options: Options
    state: TaskState
    state_time: int
    state_reason: str
    cancel_requested: bool
    attempt_count: int
    progress_percent: int
    progress_message: str
    result: bytes | None
    creator: str
    create_time: int
    expire_time: int
    update_time: int
    revision: int
    due: Due
    replay_of: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt; instants are microseconds since the Unix epoch, UTC."""

    attempt_id: str
    number: int
    state: AttemptState
    lease_time: int
    accept_time: int | None
    run_deadline: int | None
    end_time: int | None
    session_epoch: int
    result: bytes | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which agents a batch is for: a selector, and the percentage of what it matches, cut by a seed."""

    selector: str
    percentage: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch of tasks.

    ``expanded_count`` of the ``target_count`` agents that it chose have got their
    task; ``task_count`` are the tasks themselves: a deleted agent gets none.
    """

    batch_id: str
    chosen: Chosen
    new_task: NewTask
    state: BatchState
    target_count: int
    expanded_count: int
    task_count: int
    creator: str
    create_time: int


@dataclass(frozen=True, slots=True)
class BatchCancelled:
    """How many tasks the cancellation of a batch ended at once, and how many agents are asked to stop."""

    cancelled: int
    asked: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """One attempt on its way to its agent; ``run_limit`` in microseconds."""

    attempt_id: str
    task_id: str
    number: int
    spec: bytes
    run_limit: int
    idempotent: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output; ``stream`` is the contract's OutputStream."""

    stream: int
    offset: int
    data: bytes
