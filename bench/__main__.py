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
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from bench import machine, run
from bench.backing import Backing, backing
from bench.children import BenchFailed, Children
from bench.figures import BUDGETS
from bench.profiles import Profile
from bench.report import Results, results_of
from bench.stage import Stage, most_agents
from demo.processes import DemoFailed
from devtools.postgres import PostgresError
from scripts import doc_tables

console = Console(stderr=True, highlight=False, soft_wrap=True)


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


_BEGAN = time.monotonic()


def _say(text: str) -> None:
    console.print(f"  {time.monotonic() - _BEGAN:4.0f} s  {text}", markup=False)


def _run(
    folder: Path, chosen: dict[str, list[str]], quick: bool, windows: int, profile: bool, on: Backing
) -> Results:
    """Take the measures one after the other and print their lines. Whatever was started is ended."""
    here = machine.describe()
    children = Children(folder)
    stage = Stage(folder, children, _say, quick, 1 if quick else windows, backing=on)
    _say(f"measuring {on.words}")
    if not quick:
        stage.fit = most_agents()
        _say(f"fleets of up to {stage.fit:,} agents fit into the files that a process may open here")
    lines: list[dict[str, Any]] = []
    profiles: dict[str, Profile] = {}
    try:
        for name, budgets in chosen.items():
            console.print(f"[bold]{name}[/]: {', '.join(budgets)}")
            found, taken = run.measure(stage, children, name, budgets, always_profile=profile)
            for line in found:
                lines.append(line.json())
                print(json.dumps(lines[-1]), flush=True)
            if taken is not None:
                profiles[name] = taken
                run.table(taken, _say)
    finally:
        children.kill_all()
    return Results(here, f"{datetime.now(UTC):%Y-%m-%d}", lines, profiles, on.words)


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"Measure this budget, one of {', '.join(BUDGETS)}; repeatable.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, for the shape alone: claims nothing.")
    ] = False,
    windows: Annotated[int, typer.Option(min=1, max=50, help="Windows of each measure.")] = 5,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile every measure, not only one that misses its budget.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write the results into the documents; for a whole run only.")
    ] = False,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="On a real PostgreSQL, which is started for the run.")
    ] = False,
    gateways: Annotated[int, typer.Option(min=1, max=8, help="Gateway processes; PostgreSQL only.")] = 1,
) -> None:
    """Measure the budgets, each beside a yardstick of the same run."""
    if write and (only or quick):
        raise typer.BadParameter("--write is for a whole run: leave out --only and --quick")
    if gateways > 1 and not postgres:
        raise typer.BadParameter("--gateways is for PostgreSQL: add --postgres")
    try:
        chosen = run.by_measure(only or [], "postgresql" if postgres else "sqlite")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    folder = Path(tempfile.mkdtemp(prefix="fleetwright-bench-"))
    problem = ""
    try:
        with backing(postgres, gateways) as on:
            results = _run(folder, chosen, quick, windows, profile, on)
            if write:
                results.write(results_of(on.name))
                doc_tables.main(
                    [name for name in doc_tables.TABLES if name.startswith(("bench", "profiles"))]
                )
    except (BenchFailed, DemoFailed, PostgresError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted; everything is stopped"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if problem:
        console.print(f"error: {problem}", markup=False)
        sys.exit(1)
    console.print(f"measured in {time.monotonic() - _BEGAN:.0f} s")


if __name__ == "__main__":
    typer.run(main)
