"""What agents' streams and calls that create one task ask of the tasks room, as operations of the writer.

Operations about one attempt carry its id as key, those about an agent's queue
the agent's, so that each keeps its order while different attempts share
statements. ``now`` is microseconds since the Unix epoch by the server's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from controlplane.storage.writer import Operation
from controlplane.tasks.records import Assigned, Chunk, Due, InstallDetail, NewTask, TaskRecord
from controlplane.tasks.rules import Acceptance, Outcome


@dataclass(frozen=True, slots=True)
class Created:
    """What a call made; ``task`` is None where the same call had made it before."""

    task_id: str
    task: TaskRecord | None = None


@dataclass(frozen=True, slots=True)
class Create(Operation[Created]):
    """An administrator creates a task.

    Refused with ``NotFound`` AGENT_UNKNOWN, and with ``InvalidArgument`` REQUEST_ID_REUSED where
    the request_id, if there is one, stands for a call of another ``digest``.
    """

    creator: str
    request_id: str
    digest: bytes
    task_id: str
    agent_id: str
    new_task: NewTask
    due: Due
    now: int

    @property
    def key(self) -> str:
        """The call, which may come twice."""
        return f"create/{self.creator}/{self.request_id}" if self.request_id else self.task_id


class Disposition(Enum):
    """What became of a result."""

    COMMITTED = "it decided the attempt"
    DUPLICATE = "the attempt had a result already"


@dataclass(frozen=True, slots=True)
class Adopted:
    """What an agent must be told after it has listed its journal."""

    stop: tuple[str, ...]
    """Attempts that nobody wants any more."""
    resend: tuple[Assigned, ...]
    """Attempts that were handed out and are not in the journal."""
    leased: tuple[Assigned, ...] = ()
    """Attempts that are handed out now, as if a Lease had followed."""


@dataclass(frozen=True, slots=True)
class Adopt(Operation[Adopted]):
    """The agent lists its journal: (attempt id, finished) of each attempt not acknowledged.

    It can take ``limit`` attempts, those that are sent again included.
    """

    agent_id: str
    epoch: int
    journal: tuple[tuple[str, bool], ...]
    now: int
    limit: int = 0

    @property
    def key(self) -> str:
        """The agent's queue."""
        return f"agent/{self.agent_id}"


@dataclass(frozen=True, slots=True)
class Lease(Operation[tuple[Assigned, ...]]):
    """The agent can take ``limit`` more attempts."""

    agent_id: str
    epoch: int
    limit: int
    now: int

    @property
    def key(self) -> str:
        """The agent's queue."""
        return f"agent/{self.agent_id}"


@dataclass(frozen=True, slots=True)
class Accept(Operation[Acceptance]):
    """The agent has journalled an attempt."""

    agent_id: str
    attempt_id: str
    now: int

    @property
    def key(self) -> str:
        """The attempt."""
        return self.attempt_id


@dataclass(frozen=True, slots=True)
class Progress(Operation[None]):
    """The agent reports how far an attempt is; of an installation also its DeploymentStatus, 0 for none."""

    agent_id: str
    attempt_id: str
    percent: int
    message: str
    now: int
    deployment_status: int = 0

    @property
    def key(self) -> str:
        """The attempt."""
        return self.attempt_id


@dataclass(frozen=True, slots=True)
class AppendOutput(Operation[None]):
    """The agent sends a piece of an attempt's output."""

    agent_id: str
    attempt_id: str
    chunk: Chunk

    @property
    def key(self) -> str:
        """The attempt."""
        return self.attempt_id


@dataclass(frozen=True, slots=True)
class Finished:
    """What the agent must be told after it has reported a result."""

    task_id: str
    disposition: Disposition
    stop: tuple[str, ...] = ()
    """Other attempts of the task, which nobody wants any more."""


@dataclass(frozen=True, slots=True)
class Finish(Operation[Finished]):
    """The agent reports an attempt's result.

    ``result`` is the contract's AttemptResult in wire form, ``summary`` the same
    without a large detail. ``lengths`` are the bytes of stdout, stderr and log that
    it says were sent. ``install`` is the detail of an installation, None for other kinds.
    """

    agent_id: str
    attempt_id: str
    outcome: Outcome
    reason: str
    result: bytes
    summary: bytes
    lengths: tuple[int, int, int]
    now: int
    install: InstallDetail | None = None

    @property
    def key(self) -> str:
        """The attempt."""
        return self.attempt_id
