"""What this process tells agents of time and size. All from settings, none from the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """The numbers of the sessions room."""

    max_sessions: int
    heartbeat_interval: timedelta
    telemetry_interval: timedelta
    linger: timedelta
    drain_window: timedelta
    max_message_bytes: int
    max_chunk_bytes: int = 64 << 10
    max_batch_points: int = 1_000
    max_credits: int = 64
    telemetry_budget: int = 5_000
    """Points that one agent may have under way: a backlog replays, and never fills memory."""
    results_under_way: int = 64
    """Operations of one Tasks stream that wait for their commit before more is read."""
