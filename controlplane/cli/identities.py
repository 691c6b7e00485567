"""``fleetwright identities``: who may call the server's port for administrators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from fleetwright.v1.identity_service_pb2 import (
    ADMIN_ROLE_INTEGRATOR,
    ADMIN_ROLE_OPERATOR,
    AdminRole,
    Identity,
    IdentityState,
    IssueIdentityRequest,
    ListIdentitiesRequest,
    RevokeIdentityRequest,
)

from controlplane.callers import is_name
from controlplane.cli.calling import calling, noun
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Output
from controlplane.cli.paging import print_all
from controlplane.cli.values import DURATION_HELP, age, duration, duration_message, enum_name, shown_time
from controlplane.settings import ClientSettings
from controlplane.trust import setup
from controlplane.trust.handover import UnsignedIdentity
from controlplane.trust.layout import DataFolderError

app = noun(
    "Operators and integrators: issue, list, revoke.\n\n"
    "Operators may do everything; integrators read, and create and cancel tasks. An identity is a folder "
    "with key.pem, cert.pem and ca.pem; `fleetwright contexts add` takes it.\n\n"
    "\b\nExamples:\n"
    "  fleetwright identities issue operator night-shift\n"
    "  fleetwright identities list\n"
    "  fleetwright identities revoke 3f9c0a61d2e84b7790c1a5e2f4d8b6073a9e1c5d"
)


@dataclass(frozen=True)
class _Issued:
    """What is printed of an identity that no server has issued."""

    folder: Path

    @property
    def name(self) -> str:
        return str(self.folder)

    def as_dict(self) -> dict[str, Any]:
        return {"folder": self.name}


class Kind(StrEnum):
    """What an identity is for."""

    OPERATOR = "operator"
    INTEGRATOR = "integrator"


_ROLES = {Kind.OPERATOR: ADMIN_ROLE_OPERATOR, Kind.INTEGRATOR: ADMIN_ROLE_INTEGRATOR}
_COLORS = {"ACTIVE": "green", "EXPIRED": "yellow", "REVOKED": "red"}


def _columns(now: datetime) -> Sequence[Column[Identity]]:
    return (
        Column("SERIAL", lambda identity: identity.name.removeprefix("identities/")),
        Column("NAME", lambda identity: identity.display_name),
        Column("ROLE", lambda identity: enum_name(AdminRole.DESCRIPTOR, identity.role).lower()),
        Column("STATE", _state, style=lambda value: _COLORS.get(value, "")),
        Column("AGE", lambda identity: age(identity, "create_time", now)),
        Column("ENDS", lambda identity: shown_time(identity, "expire_time")),
        Column("SPIFFE ID", lambda identity: identity.spiffe_id, wide=True),
        Column("ISSUED BY", lambda identity: identity.creator, wide=True),
        Column("REVOKED", lambda identity: shown_time(identity, "revoke_time"), wide=True),
    )


@app.command("issue")
@calling
def issue(
    client: Client,
    output: Output,
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help="operator: everything; integrator: reads, and tasks.")
    ],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="1 to 63 lower-case letters, digits and hyphens.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to make. [default: ./KIND-NAME]")
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help=f"How long it holds. {DURATION_HELP} [default: 365d]"),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="On the server's machine, without the server: signs with the root in --data-dir, for 365 "
            "days, and puts the folder into its identities.",
        ),
    ] = False,
) -> None:
    """Let a person or a program in: make a key here, have it signed, and write both to a folder.

    The key is made on this machine and never sent; the folder is open to its owner alone, and none is
    overwritten. Carry it to whom it is for over a safe channel.

    \b
    Examples:
      fleetwright identities issue operator night-shift
      fleetwright identities issue integrator ticketing --out ./ticketing --ttl 30d
      fleetwright identities issue operator rescue --offline --data-dir /var/lib/fleetwright
    """
    if offline:
        if out is not None or ttl is not None:
            raise CommandFailed(
                "--offline issues for 365 days, into the data folder: leave out --out and --ttl", Exit.USAGE
            )
        data_dir = client.data_dir or ClientSettings().data_dir
        made = _Issued(setup.issue_identity(data_dir, kind, name, datetime.now(UTC)))
        _print(output, made.folder, f"{kind} {name}", made)
        return
    if not is_name(name):  # it becomes a folder's name before the server sees it
        raise typer.BadParameter(
            f"{name!r}: use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit first and "
            "last",
            param_hint="name",
        )
    length = None if ttl is None else duration_message(duration(ttl, "--ttl"))
    with UnsignedIdentity(out or Path(f"{kind}-{name}"), name) as unsigned:
        request = IssueIdentityRequest(
            role=_ROLES[kind],
            display_name=name,
            certificate_signing_request=unsigned.request,
            ttl=length,
        )
        folder, identity = signed(client, unsigned, request)
    until = shown_time(identity, "expire_time")
    _print(output, folder, f"{kind} {name}, until {until}", identity)


@app.command("list")
@calling
def list_(
    client: Client,
    output: Output,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many; 0 for all.")] = 0,
) -> None:
    """List the identities that were issued, newest first.

    Those that were made on the server's machine without the server (by `fleetwright init` or with --offline)
    are listed from their first call on.

    \b
    Examples:
      fleetwright identities list
      fleetwright identities list -o wide
    """
    request, call = ListIdentitiesRequest(), client.identities.ListIdentities
    print_all(output, call, request, "identities", limit, _columns(output.now), "no identities yet")


@app.command("revoke")
@calling
def revoke(
    client: Client,
    output: Output,
    serial: Annotated[
        str, typer.Argument(metavar="SERIAL", help="Serial of the certificate, from `identities list`.")
    ],
) -> None:
    """End an identity at once: every call with its certificate is refused from then on.

    Other programs may write a serial with colons, capitals or a zero in front; so may you.

    Example: fleetwright identities revoke 3f9c0a61d2e84b7790c1a5e2f4d8b6073a9e1c5d
    """
    plain = serial.removeprefix("identities/").replace(":", "").lower().lstrip("0")
    name = f"identities/{plain}"
    response = client.identities.RevokeIdentity(RevokeIdentityRequest(name=name))
    if output.for_people:
        output.text(f"{response.identity.spiffe_id} ({name}) is revoked")
    else:
        output.document(response.identity, [response.identity])


def signed(
    client: Client, unsigned: UnsignedIdentity, request: IssueIdentityRequest
) -> tuple[Path, Identity]:
    """Have a key signed and put its certificate beside it; return the folder and what was issued.

    A certificate that cannot be written is revoked again. Raises ``CommandFailed`` and ``grpc.RpcError``.
    """
    response = client.identities.IssueIdentity(request)
    try:
        return unsigned.finish(response.certificate, response.root), response.identity
    except DataFolderError as error:
        name = response.identity.name
        try:
            client.identities.RevokeIdentity(RevokeIdentityRequest(name=name))
        except grpc.RpcError:
            raise CommandFailed(f"{error}; {name} was issued and is of no use: revoke it") from None
        raise CommandFailed(f"{error}; {name} was issued, and is revoked again") from None


def _state(identity: Identity) -> str:
    return enum_name(IdentityState.DESCRIPTOR, identity.state)


def _print(output: Output, folder: Path, whose: str, issued: Identity | _Issued) -> None:
    if output.for_people:
        output.text(f"{folder}: {whose}")
        output.text("Carry this folder to its owner over a safe channel; key.pem is a secret.")
    else:
        output.document(issued, [issued])
