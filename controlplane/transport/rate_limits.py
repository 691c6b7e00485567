"""How often a caller may call a method: the generic cell rate algorithm.

One number for each caller and method, the time at which its bucket would be full
again (ITU-T I.371, as a virtual scheduling algorithm). A number in the past says
the same as none, so idle callers cost nothing once they are swept out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import monotonic

from controlplane.errors import ResourceExhausted
from controlplane.transport.methods import Method

REMEMBERED = 65_536
"""Buckets that are kept at most; beyond, the oldest goes, which lets its caller call again."""

_SWEEP_FROM = 4_096


class RateLimits:
    """The token buckets of one listener."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._full_at: dict[tuple[str, str], float] = {}
        self._sweep_at = _SWEEP_FROM

    def take(self, method: Method, caller: str) -> None:
        """Take one call of ``caller``; raises ``ResourceExhausted`` with RATE_LIMITED and RetryInfo."""
        rate = method.rate
        key = (method.full_name, caller)
        now = self._now()
        full_at = max(now, self._full_at.get(key, now)) + 1 / rate.per_second
        wait = full_at - now - rate.burst / rate.per_second
        if wait > 1e-9:
            raise ResourceExhausted(
                "RATE_LIMITED",
                f"{method.name}: more than {rate.per_second:g} calls a second by one caller; come back later",
                retry_after=timedelta(seconds=wait),
            )
        self._full_at[key] = full_at
        if len(self._full_at) >= self._sweep_at:
            self._sweep(now)

    def __len__(self) -> int:
        return len(self._full_at)

    def _sweep(self, now: float) -> None:
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        while len(self._full_at) >= REMEMBERED:
            del self._full_at[next(iter(self._full_at))]
        self._sweep_at = min(REMEMBERED, max(_SWEEP_FROM, 2 * len(self._full_at)))
