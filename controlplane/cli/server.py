"""The commands of the server's own machine: ``init``, ``add-host``, ``serve``."""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
import uvloop
from pydantic import ValidationError

from controlplane import bootstrap
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.errors import ServiceError
from controlplane.observability import logging
from controlplane.preflight import StartRefused
from controlplane.settings import Settings, explain, unknown_variables
from controlplane.storage.migrate import DatabaseUnusableError
from controlplane.trust import setup

app = typer.Typer(rich_markup_mode=None)

_log = structlog.get_logger(__name__)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help="Folder of the database, the roots and the identities. [default: FLEETWRIGHT_DATA_DIR, "
        "or ./fleetwright-data]",
        show_default=False,
    ),
]


def settings_from(**options: Any) -> Settings:
    """Return the settings of the environment, with the options that were given on the command line."""
    try:
        return Settings(**{name: value for name, value in options.items() if value not in (None, ())})
    except ValidationError as error:
        raise CommandFailed(explain(error), Exit.USAGE) from None


@app.command()
def init(
    data_dir: DataDir = None,
    trust_domain: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN", help="SPIFFE trust domain of every identity. [default: fleetwright.local]"
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A name or address by which agents reach this server; repeatable."),
    ] = None,
) -> None:
    """Make a data folder: the two roots, the server's certificates, a first administrator.

    Example: fleetwright init --data-dir /var/lib/fleetwright --host fleet.example.org
    """
    settings = settings_from(data_dir=data_dir, trust_domain=trust_domain, hosts=tuple(host or ()))
    identity = setup.init(settings.data_dir, settings.trust_domain, settings.hosts, datetime.now(UTC))
    typer.echo(f"data folder:         {settings.data_dir}")
    typer.echo(f"first administrator: {identity}")
    typer.echo(f"next:                fleetwright serve --data-dir {settings.data_dir}")


@app.command("add-host")
def add_host(
    host: Annotated[
        list[str],
        typer.Argument(metavar="HOST...", help="A name or address by which agents reach this server."),
    ],
    data_dir: DataDir = None,
) -> None:
    """Add names to the server's certificates; a running server takes them at its next start.

    Example: fleetwright add-host fleet.example.org 192.0.2.10
    """
    settings = settings_from(data_dir=data_dir)
    names = setup.reissue_server(settings.data_dir, host, datetime.now(UTC))
    typer.echo(f"the server's certificates are for: {', '.join(names)}")


@app.command()
def serve(
    data_dir: DataDir = None,
    bind_host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address that agents and people reach.")
    ] = None,
    agents_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Port for agents. [default: 7443]")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Port for administrators. [default: 7444]")
    ] = None,
    enrollment_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Port for enrolment. [default: 7445]")
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", help="Port for health and metrics, plaintext, loopback. [default: 7446]"
        ),
    ] = None,
    max_agents: Annotated[
        int | None, typer.Option(metavar="N", help="Agents that may be connected. [default: 10000]")
    ] = None,
    gateways: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes on the port for agents; with more than one, api and worker get processes too. "
            "Needs PostgreSQL. [default: 1]",
        ),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help="What this server does: gateway, api, worker; repeatable, or separated by commas. "
            "Fewer than all need PostgreSQL. [default: all]",
        ),
    ] = None,
    part: Annotated[
        str, typer.Option(hidden=True, metavar="NAME", help="For a supervisor: the part that this is.")
    ] = "",
    restarts: Annotated[
        int, typer.Option(hidden=True, metavar="N", help="For a supervisor: how often it was started again.")
    ] = 0,
    lifeline: Annotated[
        int, typer.Option(hidden=True, metavar="FD", help="For a supervisor: the file on which both hang.")
    ] = -1,
) -> None:
    """Serve agents, administrators and enrolment, until SIGTERM or SIGINT.

    On SQLite one process does all. On PostgreSQL there may be several, here and on other machines.
    Every other setting is an environment variable, FLEETWRIGHT_ and its name; see docs/operations.md.

    \b
    Examples:
      fleetwright serve --data-dir /var/lib/fleetwright
      fleetwright serve --gateways 3
      fleetwright serve --role gateway
    """
    settings = settings_from(
        data_dir=data_dir,
        bind_host=bind_host,
        agents_port=agents_port,
        admin_port=admin_port,
        enrollment_port=enrollment_port,
        health_port=health_port,
        max_agents=max_agents,
        gateways=gateways,
        roles=",".join(role or ()) or None,
    )
    place = bootstrap.Place(bootstrap.Part(part, restarts), lifeline) if part else None
    logging.configure(settings.log_level, settings.log_format)
    for name in unknown_variables():
        _log.warning("no setting has this name; is it misspelt?", variable=name)
    try:
        uvloop.run(_serve(settings, place))
    except (StartRefused, DatabaseUnusableError, ServiceError) as error:
        raise CommandFailed(str(error)) from None


async def _serve(settings: Settings, place: bootstrap.Place | None) -> None:
    stop, now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    supervises = settings.gateways > 1

    def stopped() -> None:
        if stop.is_set():
            _log.warning("second signal: ending without draining")
            sys.stderr.flush()
            if not supervises:
                signal.raise_signal(signal.SIGKILL)
            now.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    await bootstrap.serve(settings, stop, now, place)
