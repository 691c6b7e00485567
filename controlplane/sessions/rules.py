"""Decisions about sessions. Pure; clocks are passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

PROTOCOL_VERSIONS = range(1, 2)
"""Protocol versions that this server speaks."""

BEATS_PER_SECOND = 500
"""Beats that one process answers at ease; above, the interval grows with the fleet."""

MAX_INTERVAL = timedelta(minutes=5)


def heartbeat_interval(sessions: int, least: timedelta) -> timedelta:
    """Return the interval for a process that holds ``sessions``: at least ``least``, in whole seconds."""
    seconds = max(least.total_seconds(), -(-sessions // BEATS_PER_SECOND))
    return min(timedelta(seconds=seconds), max(MAX_INTERVAL, least))


@dataclass(slots=True)
class Allowance:
    """A token bucket for the messages of one stream: ``burst`` at once, ``rate`` a second after."""

    rate: float
    burst: float
    tokens: float
    filled: float

    def take(self, now: float) -> bool:
        """Take one token at ``now`` (monotonic seconds); returns False where none is left."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def supersedes(epoch: int, other: int) -> bool:
    """Return whether the session of ``epoch`` is newer than the one of ``other``: the newest wins."""
    return epoch > other


def spread(position: int, count: int, window: timedelta) -> timedelta:
    """Return when the ``position``-th of ``count`` sessions is told to leave, evenly over ``window``."""
    return window * position / max(count, 1)
