"""Time, passed in wherever it decides something.

Databases keep instants as whole microseconds since the Unix epoch in UTC, as
``int``: both backends order and compare those alike.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """A source of the time of day."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""
        return datetime.now(UTC)


def to_micros(moment: datetime) -> int:
    """Return microseconds since the Unix epoch of an aware ``moment``."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware UTC instant of ``micros`` since the Unix epoch."""
    return _EPOCH + timedelta(microseconds=micros)


def duration_micros(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // _MICROSECOND
