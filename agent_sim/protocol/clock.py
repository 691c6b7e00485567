"""Time as the protocol sees it; passed in, so that tests and clock-skewed agents bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
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
        """Return seconds from an arbitrary origin, never going back."""
        return time.monotonic()
