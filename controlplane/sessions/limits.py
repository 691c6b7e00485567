"""What this process tells agents of time and size. All from settings, none from the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from controlplane.sessions import rules


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """The numbers of the sessions room."""

    max_sessions: int
    heartbeat_interval: timedelta
    beats_per_second: int
    telemetry_interval: timedelta
    tasks_linger: timedelta
    telemetry_linger: timedelta
    slow_reader_after: timedelta
    first_message_after: timedelta
    """How long a stream that was opened may wait for its first message."""
    drain_window: timedelta
    max_message_bytes: int
    max_credits: int
    telemetry_budget: int
    """Points that one agent may have under way: a backlog replays, and never fills memory."""
    max_chunk_bytes: int = 64 << 10
    max_batch_points: int = 1_000
    results_under_way: int = 64
    """Operations of one Tasks stream that wait for their commit before more is read."""

    def interval(self, sessions: int) -> timedelta:
        """Return the heartbeat interval for a process that holds ``sessions``."""
        return rules.heartbeat_interval(sessions, self.heartbeat_interval, self.beats_per_second)

    def sampling(self, sessions: int) -> timedelta:
        """Return the time between two samplings of telemetry for a process that holds ``sessions``."""
        return rules.telemetry_interval(sessions, self.telemetry_interval)
