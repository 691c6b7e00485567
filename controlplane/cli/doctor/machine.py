"""The machine and the program: settings, clock, versions."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import controlplane
from controlplane.cli.doctor.findings import Finding, fail, ok, skip, warn
from controlplane.settings import unknown_variables
from controlplane.storage.inspection import sqlite_version

OLDEST_SQLITE = (3, 35, 0)
"""RETURNING, which most statements use (sqlite.org/changes.html)."""

_TIMEX_BYTES = 512  # more than any struct timex has
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


def misspelt() -> Iterator[Finding]:
    """Look for variables that look like settings and are none."""
    for name in unknown_variables():
        yield warn("settings", f"{name}: no setting has this name; is it misspelt?")


def clock(now: datetime) -> Iterator[Finding]:
    """Check that the clock is past this program's files, and whether something keeps it right."""
    installed = datetime.fromtimestamp(Path(controlplane.__file__).stat().st_mtime, UTC)
    if now < installed:
        yield fail(
            "clock",
            f"it is {now:%Y-%m-%d %H:%M:%SZ}, before this program was installed ({installed:%Y-%m-%d}): set "
            "the clock",
        )
    yield time_service()


def time_service() -> Finding:
    """Say whether the kernel knows of something that keeps its clock right (adjtimex(2))."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return skip("time service", "unknown: this system does not tell whether its clock is kept right")
    if state == _UNSYNCHRONISED:
        return warn(
            "time service",
            "nothing keeps the clock right: run chrony or systemd-timesyncd; certificates go by it",
        )
    return ok("time service", "the clock is kept right")


def versions() -> Iterator[Finding]:
    """Name what runs here, and what is too old."""
    sqlite = sqlite_version()
    if tuple(int(part) for part in sqlite.split(".")) < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        yield fail(
            "versions", f"SQLite {sqlite}: too old; take a Python that is built with {oldest} or newer"
        )
    yield ok(
        "versions",
        f"fleetwright {controlplane.VERSION}, Python {platform.python_version()}, "
        f"grpcio {version('grpcio')}, SQLite {sqlite}",
    )
