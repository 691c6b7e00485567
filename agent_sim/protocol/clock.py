"""Time as the protocol sees it; passed in, so that tests and clock-skewed agents bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that people read, and one that never jumps."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, UTC."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin, never going back."""


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin, never going back; time asleep counts."""
        return time.clock_gettime(_BOOTTIME)


_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class ServerTime:
    """The server's clock, carried on by this host's monotonic one: a wall clock that jumps does not move it.

    Certificates are issued and judged by the server's clock, so what is due is decided
    by it. Before the first Welcome it is this host's wall clock, for want of a better one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: tuple[datetime, float] | None = None

    def welcomed(self, server_time: datetime) -> None:
        """Take over the server's time from a Welcome that came just now."""
        self._told = server_time, self._clock.monotonic()

    def now(self) -> datetime:
        """Return the server's time, aware, UTC."""
        if self._told is None:
            return self._clock.now()
        server_time, at = self._told
        return server_time + timedelta(seconds=self._clock.monotonic() - at)
