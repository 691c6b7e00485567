"""How late the event loop runs what is due: the first sign of a blocked or full process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter

from controlplane.observability.metrics import Metrics

INTERVAL = timedelta(milliseconds=250)
"""Four looks a second cost nothing and catch every stall that a person would notice."""


async def measure_loop_lag(
    metrics: Metrics,
    interval: timedelta = INTERVAL,
    observe: Callable[[float], None] = lambda _lag: None,
) -> None:
    """Measure until cancelled, and tell ``observe`` each lag in seconds; run it as a task of the server."""
    seconds = interval.total_seconds()
    while True:
        due = perf_counter() + seconds  # the loop's own clock may tell milliseconds only
        await asyncio.sleep(seconds)
        lag = max(0.0, perf_counter() - due)
        metrics.loop_lag_seconds.observe(lag)
        metrics.loop_lag_last_seconds.set(lag)
        observe(lag)
