"""When a part that ended is started again. Pure; the clock is passed in.

Invariants:

* A part that keeps ending waits longer each time, up to ``LONGEST``.
* One that served for ``STABLE`` begins anew with the shortest wait.
* One that never served since the supervisor began is not started again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

FIRST = timedelta(milliseconds=500)
LONGEST = timedelta(seconds=30)
STABLE = timedelta(minutes=1)


@dataclass(slots=True)
class Restarts:
    """The history of one part: how often it was started again, and how it fared last time."""

    count: int = 0
    in_a_row: int = 0
    served_before: bool = False
    serving_since: float | None = None

    def served(self, now: float) -> None:
        """Note that the part serves, at ``now`` (monotonic seconds)."""
        self.served_before = True
        self.serving_since = now

    def ended(self, now: float) -> timedelta | None:
        """Return after which wait to start the part again; None where it cannot be started at all."""
        since, self.serving_since = self.serving_since, None
        if not self.served_before:
            return None
        if since is not None and now - since >= STABLE.total_seconds():
            self.in_a_row = 0
        wait: timedelta = min(FIRST * 2 ** min(self.in_a_row, 16), LONGEST)
        self.in_a_row += 1
        self.count += 1
        return wait
