"""What the guard sees of a job: pipes that it reads, a clock, and the size of a folder."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import dataclass, field
from datetime import timedelta

from controlplane.packaging.isolation.protocol import REPORT_BYTES, Report, read_facts
from controlplane.packaging.isolation.records import Fact, FailureKind, IsolationLimits, Usage

_SERVER = 0
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Pipes:
    """Three pipes: the facts, the job's answer, and the keeper's word on how the job ended."""

    facts: tuple[int, int]
    answer: tuple[int, int]
    end: tuple[int, int]

    @classmethod
    def make(cls) -> Pipes:
        """Open all of them; each is a pair of the end that is read and the one that is written."""
        return cls(os.pipe(), os.pipe(), os.pipe())

    def close_inner(self) -> None:
        """Close the ends that the job and its keeper write to."""
        for _, written in (self.facts, self.answer, self.end):
            os.close(written)


@dataclass(slots=True)
class Watch:
    """Collects what comes through the pipes until the job has ended or has to be ended."""

    pipes: Pipes
    limits: IsolationLimits
    deadline: float
    """By the monotonic clock."""
    abandoned: bool = False
    """The server is gone, or does not want it any more."""
    failure: FailureKind | None = None
    message: str = ""
    _read: dict[int, bytearray] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _poll: select.poll = field(default_factory=select.poll)

    def __post_init__(self) -> None:
        for descriptor in (self.pipes.facts[0], self.pipes.answer[0], self.pipes.end[0]):
            self._read[descriptor] = bytearray()
            self._open.add(descriptor)
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(_SERVER, select.POLLIN)

    @property
    def answer(self) -> bytes:
        """What the job answered so far."""
        return bytes(self._read[self.pipes.answer[0]])

    @property
    def _going_on(self) -> bool:
        return not self.abandoned and self.failure is None and self.pipes.end[0] in self._open

    def wait(self, seconds: float) -> bool:
        """Wait for so long; returns whether the job is still to go on."""
        until = time.monotonic() + seconds
        while self._going_on:
            now = time.monotonic()
            if now >= self.deadline:
                wall = self.limits.wall.total_seconds()
                self._fail(FailureKind.TIMEOUT, f"took longer than {wall:g} s")
            elif now >= until:
                return True
            else:
                self._hear(min(until, self.deadline) - now)
        return False

    def _hear(self, seconds: float) -> None:
        for descriptor, _ in self._poll.poll(seconds * 1000 + 1):
            if descriptor == _SERVER:
                self.abandoned = not _part(_SERVER)
            else:
                self._take(descriptor)

    def _take(self, descriptor: int) -> None:
        part = _part(descriptor)
        if not part:
            self._open.discard(descriptor)
            self._poll.unregister(descriptor)
            return
        collected = self._read[descriptor]
        collected += part
        answers = descriptor == self.pipes.answer[0]
        most = self.limits.result_bytes if answers else REPORT_BYTES // 2
        if len(collected) > most:
            del collected[most:]
            self._fail(FailureKind.TOO_MUCH_OUTPUT, f"the answer is longer than {most} bytes")

    def drain(self) -> None:
        """Read what is left in the pipes, once nobody can write to them any more."""
        for descriptor in list(self._open):
            while descriptor in self._open and self.failure is None:
                self._take(descriptor)

    def hold_against(self, measured: tuple[int, int]) -> None:
        """Compare bytes and number of files of the scratch folder with what is allowed."""
        size, count = measured
        if count > self.limits.scratch_files:
            what = f"more than {self.limits.scratch_files} files, or folders too deep to count"
            self._fail(FailureKind.TOO_MUCH_OUTPUT, f"the scratch folder holds {what}")
        elif size > self.limits.scratch_bytes:
            self._fail(
                FailureKind.TOO_MUCH_OUTPUT,
                f"the scratch folder holds {size} bytes; at most {self.limits.scratch_bytes}",
            )

    def _fail(self, kind: FailureKind, message: str) -> None:
        if self.failure is None:
            self.failure, self.message = kind, message

    def report(self, wall: timedelta) -> Report:
        """Return how it ended."""
        facts = self._told()
        end = _object(bytes(self._read[self.pipes.end[0]]))
        status, cpu = _whole(end.get("status"), -signal.SIGKILL), _number(end.get("cpu"))
        usage = Usage(wall, timedelta(seconds=cpu), _whole(end.get("memory"), 0))
        if self.failure is None:
            self._judge(status, cpu)
        return Report(facts, usage, status, self.failure, self.message)

    def _told(self) -> tuple[Fact, ...]:
        """Return the facts, and take over the failure where the job was not begun."""
        facts: tuple[Fact, ...] = ()
        for line in bytes(self._read[self.pipes.facts[0]]).splitlines():
            told = _object(line)
            rows = told.get("facts")
            facts = read_facts(rows) if isinstance(rows, list) else facts
            if told.get("failure"):
                # What ended the job is the consequence.
                self.failure, self.message = FailureKind(told["failure"]), str(told.get("message"))
        if not facts and self.failure is None:
            self._fail(FailureKind.NOT_STARTED, "the job's process ended before it was confined")
        return facts

    def _judge(self, status: int, cpu: float) -> None:
        most = self.limits.cpu.total_seconds()
        if status == -signal.SIGXCPU or (status == -signal.SIGKILL and cpu >= most):
            self._fail(FailureKind.CPU, f"used more than {most:g} s of processor time")
        elif status == -signal.SIGXFSZ:
            most_bytes = self.limits.file_bytes
            self._fail(
                FailureKind.TOO_MUCH_OUTPUT, f"a file grew over {most_bytes} bytes, the limit of one file"
            )
        elif status < 0:
            self._fail(FailureKind.KILLED, f"ended by signal {-status} ({_signal_name(-status)})")


def _part(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:  # the other end went away in the middle of something
        return b""


def _object(text: bytes) -> dict[str, object]:
    """Return a JSON object; empty where there is none, as of a keeper that was killed."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time"
