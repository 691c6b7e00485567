"""``make bench``: measures the product beside a yardstick, one JSON object a line.

Lines go to standard output, progress to standard error.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from agent_sim.fleet.machine import TooFewFilesError, allow_connections
from bench.children import BenchFailed, Children
from bench.figures import BUDGETS, Line, line
from bench.measures import MEASURES, Found
from bench.stage import Stage
from demo.processes import DemoFailed

console = Console(stderr=True, highlight=False, soft_wrap=True)


def _chosen(only: list[str]) -> dict[str, list[str]]:
    """Return the budgets to measure, by measure. Raises ``typer.BadParameter`` for an unknown name."""
    unknown = [name for name in only if name not in BUDGETS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]}: choose of {', '.join(BUDGETS)}")
    chosen: dict[str, list[str]] = {}
    for name, budget in BUDGETS.items():
        if not only or name in only:
            chosen.setdefault(budget.measure, []).append(name)
    return chosen


def _lines(found: Found, names: list[str], quick: bool) -> list[Line]:
    return [
        line(BUDGETS[name], found.windows[name], quick=quick, note=found.notes.get(name, ""))
        for name in names
    ]


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(
    only: Annotated[list[str] | None, typer.Option(help="Name of a budget; repeatable.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: for its shape, claims nothing.")
    ] = False,
    windows: Annotated[int, typer.Option(min=1, max=50, help="Windows of each measure.")] = 5,
) -> None:
    """Measure the budgets of one process on SQLite, each beside a yardstick of the same run."""
    chosen = _chosen(only or [])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    folder = Path(tempfile.mkdtemp(prefix="fleetwright-bench-"))
    began = time.monotonic()
    children = Children(folder)
    problem = ""
    try:
        allow_connections(100 if quick else 10_000)
        stage = Stage(
            folder, children, lambda text: console.print(f"  {text}"), quick, 1 if quick else windows
        )
        for measure, names in chosen.items():
            console.print(f"[bold]{measure}[/]: {', '.join(names)}")
            found = MEASURES[measure](stage)
            for result in _lines(found, names, quick):
                print(json.dumps(result.json()), flush=True)
            children.kill_all()
    except (BenchFailed, DemoFailed, TooFewFilesError) as error:
        problem = str(error)
        console.print(f"error: {problem}", markup=False)
    except KeyboardInterrupt:
        problem = "interrupted"
        console.print("interrupted; stopping everything")
    finally:
        children.kill_all()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"{time.monotonic() - began:.0f} s")
    sys.exit(1 if problem else 0)


if __name__ == "__main__":
    typer.run(main)
