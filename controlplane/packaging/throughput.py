"""Sharing a number of bytes a second between all who send, in the order in which they ask.

As a virtual scheduling algorithm (ITU-T I.371): one number, the time at which all that was promised is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


class Throughput:
    """Lets ``rate`` bytes a second pass, ``burst`` of them at once; a rate of 0 lets everything pass."""

    def __init__(
        self,
        rate: int,
        burst: int,
        now: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._sleep = sleep
        self._sent_at = float("-inf")

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes may pass."""
        if not self._rate:
            return
        now = self._now()
        self._sent_at = max(self._sent_at, now - self._burst / self._rate) + size / self._rate
        if self._sent_at > now:
            await self._sleep(self._sent_at - now)
