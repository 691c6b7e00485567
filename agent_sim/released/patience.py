"""How long it is tried again to get something that does not come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from agent_sim.host import FilesUnavailableError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """Tries one after the other without success, and the waits between them: exponential, full jitter.

    A server that names a time is waited for as long as that, and up to a tenth longer, so that a fleet that
    was told the same does not come at once.
    """

    tries: int = 12
    base: timedelta = timedelta(milliseconds=500)
    cap: timedelta = timedelta(seconds=30)
    longest: timedelta = timedelta(minutes=5)
    """Of what a server may ask to wait."""

    def delay(self, failures: int, told: timedelta | None) -> float:
        """Return the seconds to wait after the ``failures``-th failure in a row, counted from 1."""
        # Spreads tries; no secret depends on it.
        share = random.random()  # noqa: S311
        if told is not None:
            return min(told, self.longest).total_seconds() * (1 + share / 10)
        bound = min(self.cap.total_seconds(), self.base.total_seconds() * 2 ** min(failures - 1, 20))
        return float(bound * share)

    async def after(self, failures: int, error: FilesUnavailableError) -> None:
        """Wait after the ``failures``-th failure in a row, or raise ``error`` where it was the last."""
        if failures >= self.tries:
            raise error
        await asyncio.sleep(self.delay(failures, error.retry_after))

    async def persist(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Ask until there is an answer. Raises the last ``FilesUnavailableError``, and others at once."""
        failures = 0
        while True:
            try:
                return await ask()
            except FilesUnavailableError as error:
                failures += 1
                await self.after(failures, error)


PATIENCE: Final = Patience()
"""What suits a real host: some minutes without a byte."""
