"""When a part that ended is started again, and when one is taken for dead. Pure; the clock is passed in.

Invariants:

* A part that keeps ending waits longer each time, up to ``LONGEST``.
* One that served for ``STABLE`` begins anew with the shortest wait.
* One that never served since the supervisor began is not started again.
* One is taken for dead only by looks that each found nothing new, of which there are ``SILENT`` worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

FIRST = timedelta(milliseconds=500)
LONGEST = timedelta(seconds=30)
STABLE = timedelta(minutes=1)

LOOK = timedelta(seconds=1)
"""How often the supervisor looks whether a part has said something."""

SILENT = timedelta(seconds=20)
"""After how long without a word a part is taken for dead. Well above any stall of an event loop that passes
by itself (3 s cost no call, and agents bear more), and low enough that it is started again, and its agents
are elsewhere, within 30 s."""


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


@dataclass(slots=True)
class Silence:
    """How long a part has said nothing, counted in looks and not by the clock.

    A supervisor that was itself stopped for a minute, or a machine that was, finds one look without a word
    and not a minute of them.
    """

    looks: int = 0

    def heard(self) -> None:
        """Note that the part has said something."""
        self.looks = 0

    def looked(self) -> bool:
        """Note a look, ``LOOK`` after the former one; returns whether the part is to be taken for dead."""
        self.looks += 1
        return self.looks > SILENT / LOOK
