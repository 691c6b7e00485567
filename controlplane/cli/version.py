"""``fleetwright version``: of this command, and of the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from fleetwright.v1.server_service_pb2 import GetServerInfoRequest, GetServerInfoResponse

from controlplane import VERSION
from controlplane.cli.calling import calling
from controlplane.cli.connection import Client, NoServerNamed
from controlplane.cli.output import Column, Output, as_dict
from controlplane.cli.values import shown_time

app = typer.Typer(rich_markup_mode=None)


@dataclass(frozen=True)
class _Versions:
    """What is printed."""

    address: str = ""
    server: GetServerInfoResponse | None = None

    name = f"fleetwright/{VERSION}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "client": {"version": VERSION},
            "server": None if self.server is None else as_dict(self.server),
        }


_COLUMNS: list[Column[_Versions]] = [
    Column("Client", lambda versions: VERSION),
    Column("Server", lambda versions: versions.server.version if versions.server else ""),
    Column("Address", lambda versions: versions.address),
    Column("Trust domain", lambda versions: versions.server.trust_domain if versions.server else ""),
    Column("Serving since", lambda v: shown_time(v.server, "start_time") if v.server else ""),
    Column("Database schema", lambda versions: versions.server.schema_version if versions.server else ""),
    Column(
        "Connected agents", lambda v: f"{v.server.sessions:,} of {v.server.max_agents:,}" if v.server else ""
    ),
    Column("You are", lambda versions: versions.server.caller if versions.server else ""),
]


@app.callback()
def _version() -> None:
    """Keep ``version`` a command by name although it is the only one of this module."""


@app.command("version")
@calling
def version(
    client: Client,
    output: Output,
    only_client: Annotated[bool, typer.Option("--client", help="Ask no server.")] = False,
) -> None:
    """Print the version of this command, and of the server where one is named.

    \b
    Examples:
      fleetwright version
      fleetwright version --client
      fleetwright version --context prod -o json
    """
    output.one(_Versions() if only_client else _asked(client), _COLUMNS)


def _asked(client: Client) -> _Versions:
    try:
        address = client.target.server
    except NoServerNamed:
        return _Versions()
    return _Versions(address, client.server.GetServerInfo(GetServerInfoRequest()))
