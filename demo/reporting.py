"""What the demo says: progress on the way, and what it found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo.administrator import Tick

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class Report:
    """What the demo found; ``problems`` is empty when all is as it must be."""

    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def expect(self, fine: bool, problem: str) -> None:
        """Note ``problem`` unless ``fine``."""
        if not fine:
            self.problems.append(problem)


@contextmanager
def progress(what: str, total: int) -> Iterator[Tick]:
    """Show progress of something countable: a bar on a terminal, a line at the end elsewhere."""
    began = time.monotonic()
    if console.is_terminal:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda number: bar.advance(task, number)
        return
    done = 0

    def tick(number: int) -> None:
        nonlocal done
        done += number

    yield tick
    console.print(f"  {what}: {done} of {total} in {time.monotonic() - began:.1f} s")


def percentile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` of the sorted ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def show(report: Report) -> None:
    """Print the summary for people."""
    console.print("\n[bold]Summary[/]")
    for name, value in report.figures.items():
        if name == "fleet":
            continue
        parts = value.items() if isinstance(value, dict) else ()
        words = ", ".join(f"{key} {number}" for key, number in parts) or value
        console.print(f"  {name:<32} {words}", markup=False)
    console.print(
        "  (simulated agents run simulated hosts: their telemetry is invented, and what they install they"
    )
    console.print("  verify and put nowhere; the vulnerabilities are made up)")
    if report.problems:
        console.print("\n[bold red]Not as it must be[/]")
        for problem in report.problems:
            console.print(f"  {problem}", markup=False)
