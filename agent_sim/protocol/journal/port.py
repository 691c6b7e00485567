"""The port of the journal: what an agent must not forget.

A journal holds the attempts that the agent was handed until the server has
acknowledged their results, the telemetry that waits to be sent, and the last
session nonce. It is what makes an effect happen once: an attempt is journalled
durably before it is accepted, and marked running before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.protocol.rules import Admission, AttemptState

MAX_CHUNK_BYTES = 65536
"""Longest piece of output kept in one record, as OutputChunk.data allows."""

DEFAULT_MAX_ATTEMPTS = 4096
"""How many attempts a journal holds, as TasksOpen.journal allows."""

DEFAULT_MAX_POINTS = 100_000
"""How many telemetry points wait at most; older ones are dropped first."""


@dataclass(frozen=True)
class JournalEntry:
    """One attempt in the journal."""

    attempt_id: str
    task: str
    state: AttemptState


@dataclass(frozen=True)
class OutputRecord:
    """A piece of output as it was journalled; ``ordinal`` numbers the pieces of an attempt from 0."""

    ordinal: int
    stream: work_pb2.OutputStream.ValueType
    offset: int
    data: bytes


@dataclass(frozen=True)
class PointRange:
    """Consecutive telemetry points, each a serialised TelemetryPoint; may be empty."""

    first_sequence: int
    points: Sequence[bytes]


class Journal(Protocol):
    """What survives the agent's process. Every coroutine returns after its change is durable.

    Methods that change something raise JournalError where it cannot be written, and
    JournalFullError where only the room for it is missing, unless they say otherwise.
    """

    when_full: Callable[[], None]
    """Called each time that there was no room; set by who follows it, and does nothing before."""

    @property
    def journal_id(self) -> str:
        """Id that changes only when the journal is lost or set aside."""

    @property
    def boot_id(self) -> str:
        """Id that changes each time that the journal is opened."""

    @property
    def nonce(self) -> bytes:
        """Session nonce stored last; empty where none was."""

    @property
    def has_room(self) -> bool:
        """Whether it takes new attempts: False from the first write without room until ``recover``."""

    @property
    def reserve_share(self) -> float:
        """How much of the space kept for results is left, from 0 to 1."""

    @property
    def set_aside(self) -> int:
        """How many damaged journals stand set aside beside this one."""

    async def recover(self) -> bool:
        """Find out by writing whether there is room again, and take the reserve back; see ``has_room``."""

    async def store_nonce(self, nonce: bytes) -> None:
        """Keep the nonce of a Welcome.

        Where there is no room for it the former one stays, in memory too: shown at
        every Hello, it is always the predecessor of the server's, and so believed.
        """

    async def add(self, assignment: agent_service_pb2.Assignment) -> Admission:
        """Journal an assignment, if the rules admit it; returns what they said, FULL without room."""

    async def start(self, attempt_id: str) -> None:
        """Mark an attempt RUNNING, also again. From here on a crash is an interruption."""

    async def append_output(
        self, attempt_id: str, stream: work_pb2.OutputStream.ValueType, data: bytes
    ) -> None:
        """Append ``data`` to an output of an attempt, cut into records of at most MAX_CHUNK_BYTES."""

    async def finish(self, attempt_id: str, result: work_pb2.AttemptResult) -> None:
        """Journal a result; the lengths of the outputs are filled in from the journal."""

    async def replace_result(self, attempt_id: str, result: work_pb2.AttemptResult) -> None:
        """Put another result in the place of a finished attempt's, and forget its output."""

    async def forget(self, attempt_id: str) -> None:
        """Remove an attempt whose result was acknowledged. One that is not there is no error."""

    def entries(self) -> Sequence[JournalEntry]:
        """Return every attempt that is journalled and not forgotten, oldest first."""

    def state(self, attempt_id: str) -> AttemptState | None:
        """Return an attempt's state, or None where the journal does not know it."""

    async def assignment(self, attempt_id: str) -> agent_service_pb2.Assignment:
        """Return the assignment of an attempt. Raises KeyError where there is none."""

    async def result(self, attempt_id: str) -> work_pb2.AttemptResult:
        """Return the result of a finished attempt. Raises KeyError where there is none."""

    async def read_output(self, attempt_id: str, after: int, limit: int) -> Sequence[OutputRecord]:
        """Return up to ``limit`` records with an ordinal of at least ``after``, in order."""

    async def append_points(self, points: Sequence[work_pb2.TelemetryPoint]) -> int:
        """Queue telemetry; returns how many points were dropped since the last call to make room.

        Never for want of room an error: then the points themselves are among the dropped.
        """

    async def read_points(self, after: int, limit: int, max_bytes: int) -> PointRange:
        """Return up to ``limit`` points numbered above ``after``, of at most ``max_bytes`` together.

        The first one is returned however large it is.
        """

    @property
    def points_epoch(self) -> int:
        """Greatest epoch of a session that began to send points; 0 where none of this process did.

        What an earlier process sent is not remembered: a journal that is opened may be an old copy, and
        its points another's, which would be stored twice.
        """

    async def resume_points(self, epoch: int, last_sequence: int, previous: int | None) -> int:
        """Go on in the session of ``epoch`` where the server stands; as ``acknowledge_points``.

        ``previous`` is how far the session of ``points_epoch`` came, None where the server does not
        know. Where the server stands beyond it, a copy of this agent has used the numbers between: points
        above it were not stored, sent or not, and get new numbers. Raises JournalFullError where there is
        no room for that; nothing is forgotten then.
        """

    async def acknowledge_points(self, last_sequence: int) -> int:
        """Forget the points up to ``last_sequence`` that may have been sent; returns how many there were.

        A number above all that was read here to be sent is another's: this journal is a copy, or an
        old one. Points of which that is known move behind it and keep their order; of those that an
        earlier process queued it is not. Without room they are forgotten with a later call.
        """

    async def drop_points(self, sequences: Sequence[int]) -> int:
        """Give up points that the server refused; returns how many of them were queued."""

    @property
    def queued_points(self) -> int:
        """How many points wait to be acknowledged."""

    @property
    def unreported(self) -> int:
        """How many attempts it holds, those that are just being journalled included."""

    async def close(self) -> None:
        """Write what is pending and let go of what is open. The journal is not used afterwards."""


def cut(data: bytes) -> Iterator[bytes]:
    """Yield ``data`` in pieces of at most MAX_CHUNK_BYTES, none of them empty."""
    for start in range(0, len(data), MAX_CHUNK_BYTES):
        yield data[start : start + MAX_CHUNK_BYTES]


def fill_lengths(
    result: work_pb2.AttemptResult, lengths: Mapping[work_pb2.OutputStream.ValueType, int]
) -> None:
    """Write into ``result`` how long each output in the journal is."""
    result.stdout_bytes = lengths.get(work_pb2.OUTPUT_STREAM_STDOUT, 0)
    result.stderr_bytes = lengths.get(work_pb2.OUTPUT_STREAM_STDERR, 0)
    result.log_bytes = lengths.get(work_pb2.OUTPUT_STREAM_LOG, 0)
