"""A journal in memory, for simulated agents: the same rules, gone with the process."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.protocol.journal.port import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_POINTS,
    JournalEntry,
    OutputRecord,
    PointRange,
    cut,
    fill_lengths,
)
from agent_sim.protocol.journal.sent import SentPoints
from agent_sim.protocol.rules import Admission, AttemptIndex, AttemptState


@dataclass(slots=True)
class _Contents:
    assignment: agent_service_pb2.Assignment
    result: work_pb2.AttemptResult | None = None
    output: list[OutputRecord] = field(default_factory=list)
    lengths: dict[work_pb2.OutputStream.ValueType, int] = field(default_factory=dict)


class MemoryJournal:
    """Implements Journal without a disk. What it holds counts as durable, and its boot is its life."""

    def __init__(
        self,
        journal_id: str | None = None,
        boot_id: str | None = None,
        *,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        max_points: int = DEFAULT_MAX_POINTS,
    ) -> None:
        self._journal_id = journal_id or uuid.uuid4().hex
        self._boot_id = boot_id or uuid.uuid4().hex
        self._nonce = b""
        self._index = AttemptIndex(max_attempts)
        self._contents: dict[str, _Contents] = {}
        # None stands for a point that was given up: numbers stay with their places.
        self._points: deque[bytes | None] = deque()
        self._given_up = 0
        self._first_sequence = 1
        self._sent = SentPoints()
        self._max_points = max_points
        self.when_full: Callable[[], None] = _nothing

    @property
    def journal_id(self) -> str:
        """Id of this journal."""
        return self._journal_id

    @property
    def boot_id(self) -> str:
        """Id of this boot."""
        return self._boot_id

    @property
    def nonce(self) -> bytes:
        """Session nonce stored last; empty where none was."""
        return self._nonce

    @property
    def has_room(self) -> bool:
        """Always: its room is the bounds of its rules."""
        return True

    @property
    def reserve_share(self) -> float:
        """It keeps none, and needs none."""
        return 1.0

    @property
    def set_aside(self) -> int:
        """None: it has no file."""
        return 0

    async def recover(self) -> bool:
        """There is room."""
        return True

    async def store_nonce(self, nonce: bytes) -> None:
        """Keep the nonce of a Welcome."""
        self._nonce = nonce

    async def add(self, assignment: agent_service_pb2.Assignment) -> Admission:
        """Journal an assignment, if the rules admit it."""
        admission = self._index.admit(assignment.attempt_id, assignment.task)
        if admission is Admission.NEW:
            self._contents[assignment.attempt_id] = _Contents(assignment)
            self._index.move(assignment.attempt_id, AttemptState.JOURNALED)
        return admission

    async def start(self, attempt_id: str) -> None:
        """Mark an attempt RUNNING."""
        if self._index.state(attempt_id) is not AttemptState.RUNNING:
            self._index.move(attempt_id, AttemptState.RUNNING)

    async def append_output(
        self, attempt_id: str, stream: work_pb2.OutputStream.ValueType, data: bytes
    ) -> None:
        """Append ``data`` to an output of an attempt."""
        contents = self._contents[attempt_id]
        for piece in cut(data):
            offset = contents.lengths.get(stream, 0)
            contents.output.append(OutputRecord(len(contents.output), stream, offset, piece))
            contents.lengths[stream] = offset + len(piece)

    async def finish(self, attempt_id: str, result: work_pb2.AttemptResult) -> None:
        """Journal a result."""
        self._index.move(attempt_id, AttemptState.FINISHED)
        contents = self._contents[attempt_id]
        fill_lengths(result, contents.lengths)
        contents.result = result

    async def replace_result(self, attempt_id: str, result: work_pb2.AttemptResult) -> None:
        """Put another result in the place of a finished attempt's, and forget its output."""
        contents = self._contents[attempt_id]
        contents.output.clear()
        contents.lengths.clear()
        fill_lengths(result, contents.lengths)
        contents.result = result

    async def forget(self, attempt_id: str) -> None:
        """Remove an attempt whose result was acknowledged."""
        self._index.remove(attempt_id)
        self._contents.pop(attempt_id, None)

    def entries(self) -> Sequence[JournalEntry]:
        """Return every attempt that is journalled and not forgotten, oldest first."""
        return [JournalEntry(*attempt) for attempt in self._index.durable()]

    def state(self, attempt_id: str) -> AttemptState | None:
        """Return an attempt's state, or None."""
        return self._index.state(attempt_id)

    async def assignment(self, attempt_id: str) -> agent_service_pb2.Assignment:
        """Return the assignment of an attempt. Raises KeyError."""
        return self._contents[attempt_id].assignment

    async def result(self, attempt_id: str) -> work_pb2.AttemptResult:
        """Return the result of a finished attempt. Raises KeyError."""
        result = self._contents[attempt_id].result
        if result is None:
            raise KeyError(attempt_id)
        return result

    async def read_output(self, attempt_id: str, after: int, limit: int) -> Sequence[OutputRecord]:
        """Return up to ``limit`` records with an ordinal of at least ``after``."""
        contents = self._contents.get(attempt_id)
        return contents.output[after : after + limit] if contents else []

    async def append_points(self, points: Sequence[work_pb2.TelemetryPoint]) -> int:
        """Queue telemetry; returns how many older points were dropped."""
        self._points.extend(point.SerializeToString() for point in points)
        return self._take(len(self._points) - self._max_points)

    async def read_points(self, after: int, limit: int, max_bytes: int) -> PointRange:
        """Return up to ``limit`` points numbered above ``after``, of at most ``max_bytes`` together."""
        first = max(after + 1, self._first_sequence)
        chosen: list[bytes] = []
        size = 0
        for point in islice(self._points, first - self._first_sequence, None):
            if point is None and not chosen:
                first += 1
                continue
            if point is None or len(chosen) == limit:
                break
            size += len(point)
            if chosen and size > max_bytes:
                break
            chosen.append(point)
        self._sent.read(first + len(chosen) - 1 if chosen else 0)
        return PointRange(first, chosen)

    @property
    def points_epoch(self) -> int:
        """Greatest epoch of a session that began to send points; 0 where none did."""
        return self._sent.epoch

    async def resume_points(self, epoch: int, last_sequence: int, previous: int | None) -> int:
        """Go on in the session of ``epoch`` where the server stands."""
        self._sent.resume(epoch, last_sequence, previous)
        return await self.acknowledge_points(last_sequence)

    async def acknowledge_points(self, last_sequence: int) -> int:
        """Forget the points up to ``last_sequence`` that were sent, and move others behind it."""
        count = self._take(min(last_sequence, self._sent.up_to) + 1 - self._first_sequence)
        # Numbers are places: what is left comes behind.
        self._first_sequence = max(self._first_sequence, last_sequence + 1)
        self._sent.acknowledge(last_sequence)
        return count

    async def drop_points(self, sequences: Sequence[int]) -> int:
        """Give up points that the server refused; returns how many of them were queued."""
        count = 0
        for position in (sequence - self._first_sequence for sequence in sequences):
            if 0 <= position < len(self._points) and self._points[position] is not None:
                self._points[position] = None
                count += 1
        self._given_up += count
        return count

    def _take(self, places: int) -> int:
        """Remove so many of the oldest places; return how many of them held a point."""
        taken = [self._points.popleft() for _ in range(min(max(0, places), len(self._points)))]
        self._first_sequence += len(taken)
        empty = sum(point is None for point in taken)
        self._given_up -= empty
        return len(taken) - empty

    @property
    def queued_points(self) -> int:
        """How many points wait to be acknowledged."""
        return len(self._points) - self._given_up

    @property
    def unreported(self) -> int:
        """How many attempts it holds, those that are just being journalled included."""
        return len(self._index)

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def _nothing() -> None:
    """Stand for a listener where nobody listens."""
