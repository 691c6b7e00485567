"""How fast backlogs of telemetry are taken in, and what each stream may have under way. Pure.

All streams of a process share one bucket of points. Invariants:

* No batch waits for one that came after it, so streams that replay get equal shares.
* Over any time, no more points are taken than the rate of that time and one burst allow.
* What a stream may have under way is never less than ``LEAST_BUDGET``: it always goes on.
"""

from __future__ import annotations

from controlplane.sessions.rules import Allowance
from controlplane.sessions.rules.strain import Strain

LEAST_BUDGET = 100
"""Points under way of one stream at the least, however many replay."""

LEAST_RATE = 6_000.0
"""Points a second of all streams, at the least: a tenth of a core. What strains a process beyond that is
not a replay, and would not end with it."""

SHARED_SECONDS = 0.5
"""What all streams together may have under way, in seconds of the rate."""

_BURST_SECONDS = 0.01
_SLOWER_BY = 0.7
_FASTER_BY = 1.1

MOST_STRAIN = 0.1
"""Seconds of loop lag or of a group commit above which replays are slowed down."""


class Pace:
    """The shared bucket: ``most`` points a second, and fewer while the process is strained."""

    def __init__(self, most: float, now: float) -> None:
        self._most = most
        self._bucket = Allowance(most, most * _BURST_SECONDS, most * _BURST_SECONDS, now)
        self.streams = 0
        """Telemetry streams that are open."""

    @property
    def rate(self) -> float:
        """Points a second that are taken now."""
        return self._bucket.rate

    def owe(self, points: int, now: float) -> float:
        """Take ``points``, or give some back; returns how many seconds to wait before more is read."""
        return self._bucket.owe(now, points)

    def budget(self, most: int) -> int:
        """Return how many points a stream may have under way now, at most ``most``."""
        share = self.rate * SHARED_SECONDS / max(1, self.streams)
        return max(LEAST_BUDGET, min(most, int(share)))

    def size(self, strain: Strain, now: float) -> None:
        """Go slower or faster by what was measured since the last time, some times a second."""
        if strain.exceeds(MOST_STRAIN):
            rate = max(min(LEAST_RATE, self._most), self.rate * _SLOWER_BY)
        else:
            rate = min(self._most, self.rate * _FASTER_BY)
        self._bucket.turn(rate, rate * _BURST_SECONDS, now)
