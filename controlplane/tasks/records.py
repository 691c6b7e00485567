"""The room's own shapes of a task, between its store, service and handlers."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.tasks.rules import AttemptState, TaskState


@dataclass(frozen=True, slots=True)
class Options:
    """How a task is delivered; durations in microseconds."""

    priority: int
    queue_time: int
    run_limit: int
    idempotent: bool
    max_attempts: int


@dataclass(frozen=True, slots=True)
class NewTask:
    """What to do, and how. ``spec`` is the contract's TaskSpec in wire form."""

    kind: str
    spec: bytes
    options: Options


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
class BatchRecord:
    """One batch of tasks."""

    batch_id: str
    selector: str
    new_task: NewTask
    task_count: int
    creator: str
    create_time: int


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
