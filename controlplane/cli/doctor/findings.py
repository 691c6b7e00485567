"""What checks say: a level, and one text with what is and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "OK"
    WARN = "WARN"
    """It works now, and will not for ever, or not for all."""
    FAIL = "FAIL"
    SKIP = "SKIP"
    """Was not looked at, and why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says."""

    check: str
    level: Level
    message: str


Check = Callable[[], Iterable[Finding]]


def ok(check: str, message: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(check, Level.OK, message)


def warn(check: str, message: str) -> Finding:
    """Return that something needs attention, and which."""
    return Finding(check, Level.WARN, message)


def fail(check: str, message: str) -> Finding:
    """Return that something is broken, and the remedy."""
    return Finding(check, Level.FAIL, message)


def skip(check: str, why: str) -> Finding:
    """Return that something was not looked at."""
    return Finding(check, Level.SKIP, why)


def run(name: str, check: Check) -> Iterator[Finding]:
    """Yield what a check finds. What it raises is a finding, too: a doctor is asked when things break."""
    try:
        yield from check()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield fail(
            name, f"{where}{error.strerror or error}: run as the user of the server, and look at the disk"
        )
    except Exception as error:  # noqa: BLE001 # see above
        yield fail(name, f"could not be looked at ({type(error).__name__}: {error}): please report this")
