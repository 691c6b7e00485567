"""``fleetwright identities``: who may call the server's port for administrators."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.calling import noun
from controlplane.trust import setup

app = noun("Operators and integrators: issue, list, revoke.")


@app.callback()
def _identities() -> None:
    """Keep ``issue`` a verb of its own although it is the only one."""


@app.command("issue")
def issue(
    kind: Annotated[str, typer.Argument(help="operator (everything) or integrator (reads, and tasks).")],
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens, at most 63.")],
    data_dir: Annotated[
        Path, typer.Option(envvar="FLEETWRIGHT_DATA_DIR", help="Data folder of the server.")
    ] = Path("fleetwright-data"),
) -> None:
    """Make a key and a certificate for a person or a program.

    Example: fleetwright identities issue integrator ticketing
    """
    folder = setup.issue_identity(data_dir, kind, name, datetime.now(UTC))
    typer.echo(f"{folder}: carry this folder to its owner over a safe channel; key.pem is a secret")
