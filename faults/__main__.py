"""``make faults``: breaks the real product and prints what that lost and doubled.

The table, or with ``--output json`` one JSON object a line, goes to standard output,
progress to standard error. The exit status is 1 where a row has failed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from faults import report, run
from faults.faults import FULL, QUICK, Fault
from faults.report import Row
from faults.rows import ALL

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Output(StrEnum):
    """How the results are written."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _chosen(only: list[str], quick: bool) -> list[Fault]:
    if only:
        return [fault for fault in ALL.values() if any(word in fault.name for word in only)]
    return [fault for fault in ALL.values() if not (quick and fault.slow)]


async def _run_all(chosen: list[Fault], *, quick: bool, output: Output) -> list[Row]:
    began = time.monotonic()
    rows = []
    for number, fault in enumerate(chosen, start=1):

        def say(text: str, number: int = number, fault: Fault = fault) -> None:
            seconds = time.monotonic() - began
            _errors.print(f"{seconds:4.0f} s  {number} of {len(chosen)}  {fault.name}: {text}", markup=False)

        say(fault.what)
        row = await run.run(fault, QUICK if quick else FULL, say)
        say(
            f"{row.verdict} after {row.seconds:.0f} s; {row.acknowledged:,} acknowledged"
            f", {row.lost} lost, {row.effects:,} effects, {row.doubled} doubled"
        )
        for problem in row.problems:
            _errors.print(f"        {problem}", markup=False)
        if output is Output.JSON:
            print(json.dumps(row.json()), flush=True)
        rows.append(row)
    return rows


@app.command()
def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run the faults whose names have this text; repeatable. --list names them."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small worlds, and without the faults that take minutes.")
    ] = False,
    output: Annotated[Output, typer.Option(help="What goes to standard output.")] = Output.TABLE,
    names: Annotated[bool, typer.Option("--list", help="Only name the faults, and what each does.")] = False,
) -> None:
    """Break the product, count what was acknowledged before and what is there after it."""
    if names:
        for fault in ALL.values():
            print(f"{fault.name}: {fault.what}")
        return
    chosen = _chosen(only or [], quick)
    if not chosen:
        raise typer.BadParameter(f"--only: no fault's name has {' or '.join(only or [])}; --list names them")
    signal.signal(signal.SIGTERM, _interrupted)
    rows = asyncio.run(_run_all(chosen, quick=quick, output=output))
    if output is Output.TABLE:
        Console(width=None if sys.stdout.isatty() else 160).print(report.table(rows))
    elif output is Output.MARKDOWN:
        print(report.markdown(rows))
    skipped = [row.name for row in rows if row.verdict == report.NOT_TRIED]
    if skipped:
        _errors.print(f"not tried: {', '.join(skipped)}", markup=False)
    failed = [row.name for row in rows if row.verdict == report.FAILED]
    if failed:
        _errors.print(f"failed: {', '.join(failed)}", markup=False)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
