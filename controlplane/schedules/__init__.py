"""Periodic work: sweeps and upkeep.

What concerns the sessions and callers of one process runs in each. What concerns the
whole installation runs once: one process holds the lease of each such schedule, renewed
together with its own lease, and whoever sees it lapse takes it over with a greater fence.

A run that fails is logged and counted, and the next one comes in its time; runs of one
schedule never overlap.
"""

from __future__ import annotations

from controlplane.schedules.leases import Leases, Turn, TurnLost
from controlplane.schedules.running import Schedule, Schedules

__all__ = ["Leases", "Schedule", "Schedules", "Turn", "TurnLost"]
