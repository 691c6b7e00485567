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


PINGS_PER_SECOND = 700
"""HTTP/2 pings that a process sends at most: 10,000 agents are pinged every 15 s."""


def ping_interval(agents: int, least: timedelta) -> timedelta:
    """Return the interval of HTTP/2 pings for a process that may hold ``agents`` connections.

    It is ``least`` while these are no more than ``PINGS_PER_SECOND``; above, it grows in whole seconds,
    up to ``MAX_INTERVAL``.
    """
    return heartbeat_interval(agents, least, PINGS_PER_SECOND)


SAMPLES_PER_SECOND = 500
"""Telemetry streams that a fleet opens in a second at most: each sampling is a stream and a commit."""


def telemetry_interval(sessions: int, least: timedelta) -> timedelta:
    """Return the time between two samplings for a process that holds ``sessions``.

    It is ``least`` while the fleet samples no more than ``SAMPLES_PER_SECOND`` with that; for a larger
    fleet it grows in whole seconds, up to ``MAX_INTERVAL``.
    """
    return heartbeat_interval(sessions, least, SAMPLES_PER_SECOND)


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
        self._fill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def owe(self, now: float, tokens: int = 1) -> float:
        """Take ``tokens`` at ``now``, there or not; returns how many seconds to wait for them."""
        self._fill(now)
        self.tokens -= tokens
        return max(0.0, -self.tokens / self.rate)

    def turn(self, rate: float, burst: float, now: float) -> None:
        """Fill it at another ``rate`` from ``now`` on, up to another ``burst``."""
        self._fill(now)
        self.rate, self.burst = rate, burst

    def _fill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now


MESSAGE_RATE = 1_000
MESSAGE_BURST = 4_000
"""Messages of one Tasks stream, a second and at once: enough to replay a journal, too few to fill a core."""

PACED_AT_ONCE = 1_024


def message_allowance(now: float) -> Allowance:
    """Return the bucket of all messages of one Tasks stream."""
    return Allowance(MESSAGE_RATE, MESSAGE_BURST, MESSAGE_BURST, now)


class ProgressPace:
    """Which reports of progress of a stream are worth a write: one a second of each attempt.

    The contract's pace; two that the road pushed together both pass. One that says that an installation
    has come to its next step passes too: there are few of them, and the next report may not repeat it.
    At most ``PACED_AT_ONCE`` attempts are remembered.
    """

    def __init__(self) -> None:
        self._allowances: dict[str, Allowance] = {}
        self._steps: dict[str, int] = {}

    def passes(self, attempt_id: str, now: float, step: int = 0) -> bool:
        """Return whether to take a report at ``now`` (monotonic seconds).

        ``step`` is where an installation stands, growing as it goes on; 0 for other work.
        """
        ahead = step > 0 and self._comes_to(attempt_id, step)
        return self._in_pace(attempt_id, now) or ahead

    def _comes_to(self, attempt_id: str, step: int) -> bool:
        if step <= self._steps.get(attempt_id, 0):
            return False
        if attempt_id not in self._steps and len(self._steps) >= PACED_AT_ONCE:
            del self._steps[next(iter(self._steps))]
        self._steps[attempt_id] = step
        return True

    def _in_pace(self, attempt_id: str, now: float) -> bool:
        allowance = self._allowances.get(attempt_id)
        if allowance is None:
            if len(self._allowances) >= PACED_AT_ONCE:
                del self._allowances[next(iter(self._allowances))]
            allowance = self._allowances[attempt_id] = Allowance(1.0, 2.0, 2.0, now)
        return allowance.take(now)

    def forget(self, attempt_id: str) -> None:
        """Forget an attempt that ended."""
        self._allowances.pop(attempt_id, None)
        self._steps.pop(attempt_id, None)


def supersedes(epoch: int, other: int) -> bool:
    """Return whether the session of ``epoch`` is newer than the one of ``other``: the newest wins."""
    return epoch > other


def spread(position: int, count: int, window: timedelta) -> timedelta:
    """Return when the ``position``-th of ``count`` sessions is told to leave, evenly over ``window``."""
    return window * position / max(count, 1)
