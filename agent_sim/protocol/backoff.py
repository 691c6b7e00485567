"""Exponential backoff with full jitter (M. Brooker, "Exponential Backoff and Jitter", 2015).

Full jitter spreads a fleet that lost its server at one moment over the whole
delay. The delay starts from its base again only after a session has lived for a
stable while: otherwise a server that accepts and falls at once would be
hammered at the base rate.
"""

from __future__ import annotations

import random
from datetime import timedelta

_MAX_DOUBLINGS = 32


def to_wait(told: timedelta | None, delay: timedelta) -> timedelta:
    """Return the wait that the server ``told``, or the backoff's ``delay`` where it told none, or 0.

    A server that says 0 to everybody must not be hammered.
    """
    return told or delay


class Backoff:
    """Delays of one agent. Pure: times and randomness come from the caller.

    Invariant: a delay lies between 0 and min(cap, base * 2 ** failures).
    """

    def __init__(self, base: timedelta, cap: timedelta, stable_after: timedelta, rng: random.Random) -> None:
        self._base = base.total_seconds()
        self._cap = cap.total_seconds()
        self._stable_after = stable_after.total_seconds()
        self._rng = rng
        self._failures = 0
        self._connected_at: float | None = None

    @property
    def failures(self) -> int:
        """How many failures in a row the next delay counts."""
        return self._failures

    def connected(self, now: float) -> None:
        """Note that a session began at ``now``, in seconds of a monotonic clock."""
        self._connected_at = now

    def next_delay(self, now: float) -> timedelta:
        """Note a failure or a loss at ``now`` and return how long to wait before the next try."""
        if self._connected_at is not None and now - self._connected_at >= self._stable_after:
            self._failures = 0
        self._connected_at = None
        bound = min(self._cap, self._base * 2.0 ** min(self._failures, _MAX_DOUBLINGS))
        self._failures += 1
        return timedelta(seconds=self._rng.uniform(0.0, bound))
