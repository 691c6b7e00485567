"""``trust status`` and ``trust install``: what is in force on a server, and what comes into force."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from fleetwright.v1.trust_service_pb2 import GetTrustRequest, InstallTrustRequest, TrustRole

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Format, Output, table
from controlplane.cli.trust.app import app
from controlplane.cli.trust.files import read_document
from controlplane.cli.values import shown_time
from controlplane.trust.tuf.drafting import tell
from controlplane.trust.tuf.roles import RepositoryError


@app.command("status")
@calling
def status(client: Client, output: Output) -> None:
    """Say which roles there are, who signs for them, and how long they hold; and what has to be done soon.

    A fleet refuses packages once a role has ended: the server keeps its own going, people those of root and
    targets.

    \b
    Examples:
      fleetwright trust status
      fleetwright trust status -o wide
    """
    _no_names(output)
    response = client.trust.GetTrust(GetTrustRequest())
    if not output.for_people:
        output.document(response, [])
        return
    output.lines(table(output.chosen(columns(output.now)), response.roles))
    for warning in response.warnings:
        output.note(warning)


@app.command("install")
@calling
def install(
    client: Client,
    output: Output,
    documents: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The signed root, targets metadata, or both.")
    ],
    key_document: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The document of --renew-attesters, with the targets metadata."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether it would be taken, and what is missing.")
    ] = False,
) -> None:
    """Bring what the holders of the keys have signed to the server. It goes on running, and agents follow.

    Where both are given they come into force at once. What is in force already is no change.

    \b
    Examples:
      fleetwright trust install root-2.json --check
      fleetwright trust install root-2.json targets-2.json
      fleetwright trust install targets-2.json --key-document attestation-keys.json
    """
    _no_names(output)
    request = _request(documents)
    request.validate_only = check
    if key_document is not None:
        request.key_document = read_document(key_document)
    response = client.trust.InstallTrust(request)
    if not output.for_people:
        output.document(response, [])
        return
    output.lines(table(output.chosen(columns(output.now)), response.roles))
    if check:
        output.text("nothing is missing: it can be installed")
    else:
        output.text("in force" if response.changed else "it was in force already")


def columns(now: datetime) -> Sequence[Column[TrustRole]]:
    """Return the columns of a list of roles."""
    return (
        Column("ROLE", lambda one: one.role),
        Column("VERSION", lambda one: str(one.version)),
        Column("KEYS", lambda one: f"{one.threshold} of {len(one.key_ids)}"),
        Column("WHERE", lambda one: "offline" if one.offline else "server"),
        Column("ENDS", lambda one: shown_time(one, "expire_time")),
        Column("LEFT", lambda one: _left(one, now), style=lambda text: "red" if text == "ENDED" else ""),
        Column("KEY IDS", lambda one: ", ".join(key_id[:16] for key_id in one.key_ids), wide=True),
    )


def _left(one: TrustRole, now: datetime) -> str:
    seconds = one.expire_time.seconds - now.timestamp()
    if seconds <= 0:
        return "ENDED"
    return f"{int(seconds // 86_400)}d" if seconds >= 2 * 86_400 else f"{int(seconds // 3_600)}h"


def _request(documents: Sequence[Path]) -> InstallTrustRequest:
    request = InstallTrustRequest()
    for path in documents:
        content = read_document(path)
        try:
            role = tell(content).role
        except RepositoryError as error:
            raise CommandFailed(f"{path}: {error}") from None
        if getattr(request, role):
            raise CommandFailed(
                f"{path}: a second document of the role {role}: bring one of each", Exit.USAGE
            )
        setattr(request, role, content)
    return request


def _no_names(output: Output) -> None:
    if output.format is Format.NAME:
        raise CommandFailed("-o name: roles are no resources: take table, wide, json or yaml", Exit.USAGE)
