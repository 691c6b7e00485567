"""How late the event loop runs what is due: the first sign of a blocked or full process."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from controlplane.observability.metrics import Metrics

INTERVAL = timedelta(milliseconds=250)
"""Four looks a second cost nothing and catch every stall that a person would notice."""


async def measure_loop_lag(metrics: Metrics, interval: timedelta = INTERVAL) -> None:
    """Measure until cancelled; run it as a task of the server."""
    loop = asyncio.get_running_loop()
    seconds = interval.total_seconds()
    while True:
        due = loop.time() + seconds
        await asyncio.sleep(seconds)
        lag = max(0.0, loop.time() - due)
        metrics.loop_lag_seconds.observe(lag)
        metrics.loop_lag_last_seconds.set(lag)
