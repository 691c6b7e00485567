"""When maintenance windows open and close. Pure: the instant is passed in.

Openings are those of Debian's cron in the window's own time zone, by the library
``cronsim``: a time that the change to summer time leaves out comes right after the
gap, one that comes twice counts once. How long a window stays open is elapsed time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from controlplane.clock import from_micros, to_micros
from controlplane.tasks.records import Due, Window

FIELDS = 5
"""Of an expression; a sixth one, for seconds, is not taken."""

_SECOND = 1_000_000


class WindowInvalid(ValueError):
    """A window without a meaning; ``field`` is its part, the message says what to write."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def check(window: Window, now: int) -> None:
    """Raise ``WindowInvalid`` unless the window can be read and opens again."""
    zone = _zone(window.zone)
    if len(window.cron.split()) != FIELDS:
        raise WindowInvalid(
            "cron",
            f"{window.cron!r} is not five fields: minute, hour, day of month, month, day of week, "
            "as in '0 2 * * SAT'",
        )
    try:
        found = next(CronSim(window.cron, from_micros(now).astimezone(zone)), None)
    except CronSimError as error:
        wrong = str(error).removeprefix("Bad ")
        raise WindowInvalid(
            "cron", f"{window.cron!r} has a {wrong} out of form or out of range, or that never comes"
        ) from None
    if found is None:
        raise WindowInvalid("cron", f"{window.cron!r} never opens; there is no such day in 50 years")


def opening(window: Window, now: int) -> Due:
    """Return the window that is open at ``now``, or else the next one.

    Raises ``WindowInvalid`` for one that ``check`` would refuse.
    """
    check(window, now)
    # A second later, for an opening at this very instant: both directions leave out where they begin.
    before = next(_openings(window, now + _SECOND, reverse=True), None)
    if before is not None and now < before + window.duration:
        return Due(before, before + window.duration)
    begin = next(_openings(window, now, reverse=False))
    return Due(begin, begin + window.duration)


def _openings(window: Window, start: int, *, reverse: bool) -> Iterator[int]:
    local = from_micros(start).astimezone(_zone(window.zone))
    for found in CronSim(window.cron, local, reverse=reverse):
        yield to_micros(found.astimezone(UTC))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    # A name may be that of a folder, or no path at all.
    except (KeyError, ValueError, OSError):
        raise WindowInvalid(
            "time_zone", f"there is no time zone {name!r}; write an IANA name, such as Europe/Berlin"
        ) from None
