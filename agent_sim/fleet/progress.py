"""What people see while a fleet runs: a bar on a terminal, a line each few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agent_sim.fleet.counters import Counters

REFRESH = 0.5
"""Seconds between two looks at the counters."""
_LINE_INTERVAL = 5.0


class Display(Protocol):
    """Shows a phase and the counters, on standard error."""

    def show(self, phase: str, done: int, total: int) -> None:
        """Show how far ``phase`` is."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Bar:
    """A progress bar on a terminal."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._progress.start()
        self._task = self._progress.add_task("starting", total=None, counts="")

    def show(self, phase: str, done: int, total: int) -> None:
        """Show how far ``phase`` is."""
        counts = describe(self._counters)
        self._progress.update(self._task, description=phase, completed=done, total=total, counts=counts)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


class Lines:
    """A status line when the phase changes, and each few seconds."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._phase = ""
        self._next = 0.0

    def show(self, phase: str, done: int, total: int) -> None:
        """Print where ``phase`` is, if it is time to."""
        now = time.monotonic()
        if phase != self._phase or now >= self._next:
            self._phase, self._next = phase, now + _LINE_INTERVAL
            print(
                f"{phase}: {done} of {total} agents; {describe(self._counters)}", file=sys.stderr, flush=True
            )

    def close(self) -> None:
        """Do nothing: lines stay."""


def describe(counters: Counters) -> str:
    """Return the live counters in words."""
    errors = sum(counters.errors.values())
    return (
        f"{counters.effects} effects, {sum(counters.results_acknowledged.values())} results, "
        f"{counters.points_acknowledged} points, {counters.reconnects} reconnects, {errors} errors"
    )


def display_for(counters: Counters) -> Display:
    """Return a bar where standard error is a terminal, lines elsewhere."""
    return Bar(counters) if sys.stderr.isatty() else Lines(counters)
