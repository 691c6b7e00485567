"""What a simulated fleet counts, and the observer that counts it."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TextIO

from fleetwright.v1 import agent_service_pb2

from agent_sim.protocol.observer import Observer

_MAX_LATENCIES = 50_000
"""Latencies kept; beyond that a uniform sample of all of them."""


@dataclass
class Counters:
    """Totals of a fleet since it began."""

    agents: int = 0
    enrolled: int = 0
    connected: int = 0
    peak_connected: int = 0
    connected_once: int = 0
    """Agents that were connected at least once."""
    stopped_early: int = 0
    assignments_received: int = 0
    effects: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    results_acknowledged: Counter[str] = field(default_factory=Counter)
    points_sent: int = 0
    points_acknowledged: int = 0
    points_dropped: int = 0
    sessions: int = 0
    reconnects: int = 0
    renewals: int = 0
    disconnects: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    beats_answered: int = 0
    latencies: list[float] = field(default_factory=list)

    def beat_answered(self, seconds: float, rng: random.Random) -> None:
        """Keep a latency, by reservoir sampling (Vitter's algorithm R) once there are many."""
        self.beats_answered += 1
        if len(self.latencies) < _MAX_LATENCIES:
            self.latencies.append(seconds)
        elif (place := rng.randrange(self.beats_answered)) < _MAX_LATENCIES:
            self.latencies[place] = seconds

    def latency_ms(self, quantile: float) -> float | None:
        """Return a quantile of the beats' latencies in milliseconds; None where no beat was answered."""
        if not self.latencies:
            return None
        ordered = sorted(self.latencies)
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000, 3)


class Receipts:
    """Writes when each assignment was received, as JSON lines, by the wall clock of this machine."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def record(self, assignment: agent_service_pb2.Assignment, agent_id: str) -> None:
        """Write one receipt; ``time_us`` in microseconds since the epoch."""
        receipt = {
            "task": assignment.task,
            "attempt": assignment.attempt_id,
            "agent": agent_id,
            "time_us": time.time_ns() // 1000,
        }
        self._file.write(json.dumps(receipt, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_HAND_OVER = frozenset({"SUPERSEDED", "SESSION_REPLACED"})
"""Ends of a session that a renewed certificate's session took over from: no loss, and no reconnect."""


class MemberObserver(Observer):
    """Counts what one simulated agent's engine tells."""

    def __init__(
        self, agent_id: str, counters: Counters, receipts: Receipts | None, rng: random.Random
    ) -> None:
        self._agent_id = agent_id
        self._counters = counters
        self._receipts = receipts
        self._rng = rng
        self._live = 0
        self._sessions = 0
        self._last_end = ""
        self.on_first_connection: Callable[[], None] | None = None

    def connected(self, epoch: int) -> None:
        """Count a session; two of one agent, while one takes over, count once."""
        self._counters.sessions += 1
        self._sessions += 1
        self._live += 1
        if self._sessions == 1:
            self._counters.connected_once += 1
            if self.on_first_connection is not None:
                self.on_first_connection()
        if self._live == 1:
            self._counters.connected += 1
            self._counters.peak_connected = max(self._counters.peak_connected, self._counters.connected)
            if self._sessions > 1 and self._last_end not in _HAND_OVER:
                self._counters.reconnects += 1

    def disconnected(self, reason: str) -> None:
        """Count the end of a session."""
        self._counters.disconnects[reason] += 1
        self._last_end = reason
        self._live -= 1
        if self._live == 0:
            self._counters.connected -= 1

    def failed(self, reason: str, detail: str) -> None:
        """Count an error."""
        self._counters.errors[reason] += 1

    def assignment_received(self, assignment: agent_service_pb2.Assignment) -> None:
        """Count an assignment and write its receipt."""
        self._counters.assignments_received += 1
        if self._receipts is not None:
            self._receipts.record(assignment, self._agent_id)

    def attempt_finished(self, attempt_id: str, outcome: str) -> None:
        """Count a result."""
        self._counters.finished[outcome.removeprefix("OUTCOME_")] += 1

    def result_acknowledged(self, attempt_id: str, disposition: str) -> None:
        """Count an acknowledgement."""
        self._counters.results_acknowledged[disposition] += 1

    def points_sent(self, count: int) -> None:
        """Count points."""
        self._counters.points_sent += count

    def points_acknowledged(self, count: int) -> None:
        """Count points."""
        self._counters.points_acknowledged += count

    def points_dropped(self, count: int) -> None:
        """Count points."""
        self._counters.points_dropped += count

    def beat_answered(self, latency: timedelta) -> None:
        """Keep a latency."""
        self._counters.beat_answered(latency.total_seconds(), self._rng)

    def renewed(self, not_after: str) -> None:
        """Count a renewal."""
        self._counters.renewals += 1
