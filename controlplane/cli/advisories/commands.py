"""Importing advisories, and how current those are that are in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from fleetwright.v1.advisory_service_pb2 import (
    AdvisoryEcosystem,
    GetAdvisoryStatusRequest,
    ImportAdvisoriesResponse,
)

from controlplane.cli.advisories.sending import send_export
from controlplane.cli.calling import calling, noun
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Format, Output, as_dict, table
from controlplane.cli.values import age, moment, shown_time
from controlplane.packaging.advisories.exports import Export, ExportError, find

app = noun(
    "What is known of vulnerabilities, from exports of OSV: import, status.\n\n"
    "Advisories come as files: nothing is asked of the network. An export is that of one ecosystem, a zip as "
    "osv.dev publishes it, or the same unpacked. A scan fails over advisories that are missing or too old: "
    "it never passes what nobody has looked for.\n\n"
    "\b\nExamples:\n"
    "  fleetwright advisories import ./osv\n"
    "  fleetwright advisories status"
)


@dataclass
class Imported:
    """What was taken in, export by export."""

    ecosystems: list[AdvisoryEcosystem] = field(default_factory=list)
    changed: int = 0

    def add(self, response: ImportAdvisoriesResponse) -> None:
        """Add what an import answered."""
        self.ecosystems.extend(response.ecosystems)
        self.changed += response.changed_count

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get: the response's own fields."""
        return {"ecosystems": [as_dict(one) for one in self.ecosystems], "changedCount": self.changed}


@app.command("import")
@calling
def import_(
    client: Client,
    output: Output,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Zips, folders of records, or a folder of folders of these."),
    ],
    ecosystem: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which one it is of: PyPI, npm, Go, Maven, Debian and others."),
    ] = None,
    exported: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it was exported. [default: as new as its newest record]"),
    ] = None,
    accept_rollback: Annotated[
        bool, typer.Option("--accept-rollback", help="Take one that knows less than what is in force.")
    ] = False,
) -> None:
    """Import advisories; then every package in the store is scanned and judged again.

    A folder is looked through for exports as osv.dev lays them out: ECOSYSTEM/all.zip, or ECOSYSTEM/*.json.
    Each is taken in whole or not at all, one after the other; what is in force stays so until then. One that
    knows less than what is in force is refused: somebody may be holding something back.

    \b
    Examples:
      fleetwright advisories import ./osv
      fleetwright advisories import ./PyPI/all.zip ./npm/all.zip
      fleetwright advisories import ./today.zip --ecosystem Debian --exported 2026-11-23T08:00:00Z
    """
    _no_names(output)
    when = None if exported is None else moment(exported, output.now, "--exported")
    found = _exports(paths, ecosystem)
    done = Imported()
    try:
        for export in found:
            done.add(_import(client, output, export, when, accept_rollback=accept_rollback))
    finally:
        # Those before one that failed are in force.
        if done.ecosystems:
            _print(output, done)


@app.command("status")
@calling
def status(client: Client, output: Output) -> None:
    """Say which ecosystems are covered, how many advisories there are of each, and how old they are.

    STALE is one that is older than the server accepts: a scan that needs it fails until it is imported anew.

    \b
    Examples:
      fleetwright advisories status
      fleetwright advisories status -o json
    """
    _no_names(output)
    response = client.advisories.GetAdvisoryStatus(GetAdvisoryStatusRequest())
    output.items(
        response,
        "ecosystems",
        columns(output.now),
        "no advisories: every scan fails until `fleetwright advisories import` has brought some",
    )


def columns(now: datetime) -> list[Column[Any]]:
    """Return the columns of a list of ecosystems."""
    return [
        Column("ECOSYSTEM", lambda one: one.ecosystem),
        Column("STATE", lambda one: "STALE" if one.stale else "CURRENT", style=_style),
        Column("ADVISORIES", lambda one: f"{one.advisory_count:,}"),
        Column("NEWEST", lambda one: shown_time(one, "newest_time")),
        Column("AGE", lambda one: age(one, "newest_time", now)),
        Column("IMPORTED", lambda one: shown_time(one, "import_time")),
        Column("VERSION", lambda one: str(one.import_version), wide=True),
        Column("WITHDRAWN", lambda one: f"{one.withdrawn_count:,}", wide=True),
        Column("SHA-256", lambda one: one.sha256, wide=True),
    ]


def _style(state: str) -> str:
    return "red" if state == "STALE" else "green"


def _exports(paths: Sequence[Path], ecosystem: str | None) -> list[Export]:
    """Return the exports below all paths; what is none is told before anything is sent."""
    try:
        return [export for path in paths for export in _below(path, ecosystem or "")]
    except ExportError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None


def _below(path: Path, ecosystem: str) -> list[Export]:
    if path.is_file() and not ecosystem:
        try:
            return find(path)
        except ExportError:
            return [Export("", path)]  # the server looks what its records speak of
    return find(path, ecosystem)


def _import(
    client: Client, output: Output, export: Export, when: datetime | None, *, accept_rollback: bool
) -> ImportAdvisoriesResponse:
    try:
        return send_export(client, output, export, when, accept_rollback=accept_rollback)
    except ExportError as error:
        raise CommandFailed(str(error)) from None
    except (KeyboardInterrupt, grpc.RpcError):
        output.note(f"{export.path}: what was in force before may still be: `fleetwright advisories status`")
        raise


def _print(output: Output, done: Imported) -> None:
    if not output.for_people:
        output.document(done, [])
        return
    output.lines(table(output.chosen(columns(output.now)), done.ecosystems))
    output.text(
        f"{done.changed:,} packages have another decision now" if done.changed else "no decision changed"
    )


def _no_names(output: Output) -> None:
    if output.format is Format.NAME:
        raise CommandFailed(
            "-o name: ecosystems are no resources: take table, wide, json or yaml", Exit.USAGE
        )
