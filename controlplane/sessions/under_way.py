"""How many operations of one stream wait for their commit."""

from __future__ import annotations

import asyncio


class UnderWay:
    """Counts what one reader has begun, at most ``limit`` at once, and lets it wait for the rest to end.

    One task alone may wait: a stream's reader, which begins all and is there when none is left.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._below = limit
        self._woken: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        """Count one more, as soon as fewer than ``limit`` are under way."""
        if self._count >= self._limit:
            await self._fewer_than(self._limit)
        self._count += 1

    def end(self) -> None:
        """Count one less."""
        self._count -= 1
        if self._woken is not None and self._count < self._below and not self._woken.done():
            self._woken.set_result(None)

    async def none(self) -> None:
        """Wait until none is under way."""
        await self._fewer_than(1)

    async def _fewer_than(self, count: int) -> None:
        while self._count >= count:
            self._below, self._woken = count, asyncio.get_running_loop().create_future()
            try:
                await self._woken
            finally:
                self._woken = None
