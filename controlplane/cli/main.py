"""The ``fleetwright`` command."""

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
from rich.console import Console

from controlplane import VERSION, bootstrap
from controlplane.cli import tokens
from controlplane.errors import ServiceError
from controlplane.observability import logging
from controlplane.preflight import StartRefused
from controlplane.settings import Settings, explain, unknown_variables
from controlplane.storage.migrate import DatabaseUnusableError
from controlplane.trust import setup
from controlplane.trust.layout import DataFolderError

app = typer.Typer(
    name="fleetwright",
    help="Control a fleet of endpoints.\n\nA first server, from nothing:\n\n"
    "  fleetwright init --data-dir ./site --host fleet.example.org\n\n"
    "  fleetwright serve --data-dir ./site\n\n"
    "  fleetwright tokens create --data-dir ./site",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
identities = typer.Typer(help="Identities of operators and integrators.", no_args_is_help=True)
app.add_typer(identities, name="identities")
app.add_typer(tokens.app, name="tokens")

_log = structlog.get_logger(__name__)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of the database, the roots and the identities. [default: FLEETWRIGHT_DATA_DIR, "
        "or ./fleetwright-data]",
        show_default=False,
    ),
]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Print one clear message and return the exit to raise."""
    _err.print(f"error: {message}", markup=False)
    return typer.Exit(code)


def settings_from(**options: Any) -> Settings:
    """Return the settings of the environment, with the options that were given on the command line."""
    try:
        return Settings(**{name: value for name, value in options.items() if value not in (None, ())})
    except ValidationError as error:
        raise fail(explain(error), 2) from None


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(VERSION)
        raise typer.Exit


@app.command()
def init(
    data_dir: DataDir = None,
    trust_domain: Annotated[
        str | None, typer.Option(help="SPIFFE trust domain of every identity. [default: fleetwright.local]")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address by which agents reach this server; repeatable."),
    ] = None,
) -> None:
    """Make a data folder: the two roots, the server's certificates, a first administrator.

    Example: fleetwright init --data-dir /var/lib/fleetwright --host fleet.example.org
    """
    settings = settings_from(data_dir=data_dir, trust_domain=trust_domain, hosts=tuple(host or ()))
    try:
        identity = setup.init(settings.data_dir, settings.trust_domain, settings.hosts, datetime.now(UTC))
    except DataFolderError as error:
        raise fail(str(error)) from None
    typer.echo(f"data folder:         {settings.data_dir}")
    typer.echo(f"first administrator: {identity}")
    typer.echo(f"next:                fleetwright serve --data-dir {settings.data_dir}")


@app.command("add-host")
def add_host(
    host: Annotated[list[str], typer.Argument(help="A name or address by which agents reach this server.")],
    data_dir: DataDir = None,
) -> None:
    """Add names to the server's certificates; a running server takes them at its next start.

    Example: fleetwright add-host fleet.example.org 192.0.2.10
    """
    settings = settings_from(data_dir=data_dir)
    try:
        names = setup.reissue_server(settings.data_dir, host, datetime.now(UTC))
    except DataFolderError as error:
        raise fail(str(error)) from None
    typer.echo(f"the server's certificates are for: {', '.join(names)}")


@identities.command("issue")
def issue(
    kind: Annotated[str, typer.Argument(help="operator (everything) or integrator (reads, and tasks).")],
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens, at most 63.")],
    data_dir: DataDir = None,
) -> None:
    """Make a key and a certificate for a person or a program.

    Example: fleetwright identities issue integrator ticketing
    """
    settings = settings_from(data_dir=data_dir)
    try:
        folder = setup.issue_identity(settings.data_dir, kind, name, datetime.now(UTC))
    except DataFolderError as error:
        raise fail(str(error)) from None
    typer.echo(f"{folder}: carry this folder to its owner over a safe channel; key.pem is a secret")


@app.command()
def serve(
    data_dir: DataDir = None,
    bind_host: Annotated[str | None, typer.Option(help="Address that agents and people reach.")] = None,
    agents_port: Annotated[int | None, typer.Option(help="Port for agents. [default: 7443]")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port for administrators. [default: 7444]")] = None,
    enrollment_port: Annotated[int | None, typer.Option(help="Port for enrolment. [default: 7445]")] = None,
    health_port: Annotated[
        int | None, typer.Option(help="Port for health and metrics, plaintext, loopback. [default: 7446]")
    ] = None,
    max_agents: Annotated[
        int | None, typer.Option(help="Agents that may be connected. [default: 10000]")
    ] = None,
) -> None:
    """Serve agents, administrators and enrolment in one process, until SIGTERM or SIGINT.

    Every other setting is an environment variable, FLEETWRIGHT_ and its name; see docs/operations.md.

    Example: fleetwright serve --data-dir /var/lib/fleetwright
    """
    settings = settings_from(
        data_dir=data_dir,
        bind_host=bind_host,
        agents_port=agents_port,
        admin_port=admin_port,
        enrollment_port=enrollment_port,
        health_port=health_port,
        max_agents=max_agents,
    )
    logging.configure(settings.log_level, settings.log_format)
    for name in unknown_variables():
        _log.warning("no setting has this name; is it misspelt?", variable=name)
    try:
        uvloop.run(_serve(settings))
    except (StartRefused, DataFolderError, DatabaseUnusableError, ServiceError) as error:
        raise fail(str(error)) from None


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopped() -> None:
        if stop.is_set():
            _log.warning("second signal: ending without draining")
            sys.stderr.flush()
            signal.raise_signal(signal.SIGKILL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    await bootstrap.serve(settings, stop)


def main() -> None:
    """Run the command."""
    app()
