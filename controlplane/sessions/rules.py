"""Decisions about sessions. Pure; clocks are passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

PROTOCOL_VERSIONS = range(1, 2)
"""Protocol versions that this server speaks."""

MAX_INTERVAL = timedelta(minutes=5)
BEAT_BURST = 10


def heartbeat_interval(sessions: int, least: timedelta, beats_per_second: int) -> timedelta:
    """Return the interval for a process that holds ``sessions``.

    It is ``least`` while the fleet sends no more than ``beats_per_second`` with that; for
    a larger fleet it grows in whole seconds, up to ``MAX_INTERVAL``.
    """
    if least * beats_per_second >= timedelta(seconds=sessions):
        return least
    grown = timedelta(seconds=-(-sessions // beats_per_second))
    return max(least, min(grown, MAX_INTERVAL))


def beat_allowance(interval: timedelta, now: float) -> Allowance:
    """Return the bucket of one session's beats: twice the pace of its interval, and some at once.

    A stalled agent may send what it owes; one that floods is stopped.
    """
    return Allowance(2 / interval.total_seconds() + 0.5, BEAT_BURST, BEAT_BURST, now)


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
