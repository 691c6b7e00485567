"""Verifying an exported bundle, on a machine that knows no server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from controlplane.cli.calling import calling
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Output, clean
from controlplane.cli.packages.app import app
from controlplane.cli.values import moment

if TYPE_CHECKING:
    from fleetwright.verify.reports import Report

LARGEST_ROOT: Final = 1024 * 1024
"""Bytes of a trusted root: far more than any has, so that a wrong file is told as such."""

_STYLES: Final = {"ok": "green", "missing": "red", "wrong": "red"}


@dataclass(frozen=True)
class Verified:
    """What is printed of a verification."""

    bundle: Path
    at: datetime
    report: Report

    @property
    def name(self) -> str:
        """What ``-o name`` prints."""
        return str(self.bundle)

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""
        return {"bundle": str(self.bundle), "asOf": self.at.isoformat(), **self.report.as_dict()}


@app.command("verify")
@calling
def verify(
    output: Output,
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="File of `packages export`, or the folder of one.")
    ],
    root: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The trusted root, root.json of `trust init`, got by another way."),
    ],
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="As of then: 2026-11-23T08:00:00Z, or 15m for ago. [default: now]"),
    ] = None,
) -> None:
    """Verify a package by its evidence, offline: release, signature, provenance, SBOM, scan and verdict.

    Asks no server, and believes nothing of the bundle but what follows from the trusted root, which has to
    come from elsewhere. Prints one line for each check, also after the first that fails, and says of each
    whether its evidence is missing or wrong. Exit status 1 unless all of it holds.

    \b
    Examples:
      fleetwright packages verify curl@8.1.bundle.zip --root root.json
      fleetwright packages verify ./bundle --root root.json --at 2026-11-23T08:00:00Z -o json
    """
    # Not at the top: it takes longer to import than all of --help.
    from fleetwright.verify.bundle import verify_bundle

    when = output.now if at is None else moment(at, output.now, "--at")
    trusted = _trusted_root(root)
    with output.progress(f"verifying {clean(bundle.name)}"):
        found = Verified(bundle, when, verify_bundle(bundle, trusted, when))
    _print(output, found)
    if not found.report.ok:
        names = ", ".join(f"{check.name} is {check.outcome.value}" for check in found.report.failures)
        raise CommandFailed(f"{bundle}: do not install it: {names}", Exit.FAILED)


def _trusted_root(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST_ROOT + 1)
    if len(content) > LARGEST_ROOT:
        raise CommandFailed(
            f"--root {path}: more than {LARGEST_ROOT:,} bytes, and no trusted root: give the root.json that "
            "`fleetwright trust init` made",
            Exit.USAGE,
        )
    return content


def _print(output: Output, found: Verified) -> None:
    if not output.for_people:
        output.document(found, [found])
        return
    columns: list[Column[Any]] = [
        Column("CHECK", lambda check: check.name),
        Column("OUTCOME", lambda check: check.outcome.value, style=lambda value: _STYLES.get(value, "")),
        Column("DETAIL", lambda check: check.detail),
    ]
    output.items(_Checks(found), "checks", columns)


@dataclass(frozen=True)
class _Checks:
    """The checks of a report as a list of items."""

    found: Verified

    @property
    def checks(self) -> Any:
        return self.found.report.checks

    def as_dict(self) -> dict[str, Any]:
        return self.found.as_dict()
