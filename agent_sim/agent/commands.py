"""The subcommands of ``fleetwright-agent``."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.table import Table

from agent_sim import failpoints
from agent_sim.agent.arguments import (
    TOKEN_VARIABLE,
    check_proxy,
    chosen_agent_id,
    host_and_port,
    join_token,
)
from agent_sim.agent.log_format import LEVELS, configure_logging
from agent_sim.agent.operation import RootKept, enroll_host, enrolled, run_host
from agent_sim.agent.policy import PolicyError
from agent_sim.agent.state import StateError, StateFolder, default_state
from agent_sim.agent.status import read_status
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.errors import AgentError

DEFAULT_ENROLLMENT_PORT = 7445

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class OutputFormat(StrEnum):
    """How ``status`` prints."""

    TABLE = "table"
    JSON = "json"


def explain(error: Exception) -> str:
    """Say in one line what went wrong; the unforeseen by its kind, for its text may hold anything."""
    if isinstance(error, AgentError | PolicyError | StateError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    structlog.get_logger(__name__).debug("unforeseen", exc_info=error)
    return f"unforeseen {type(error).__name__}; run again with --log-level debug and report what it logs"


def program_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("fleetwright-controlplane")
    except PackageNotFoundError:
        return "0+source"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleetwright-agent {program_version()}")
        raise typer.Exit


StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="The agent's own folder, closed to others: identity, journal, policy. "
        "Default: /var/lib/fleetwright-agent as root, ~/.local/state/fleetwright-agent otherwise.",
        show_default=False,
    ),
]
LogLevelOption = Annotated[
    str, typer.Option("--log-level", metavar="LEVEL", help=f"One of {', '.join(LEVELS)}.")
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with the join token; - reads standard input."),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar=TOKEN_VARIABLE,
        show_envvar=True,
        help="The join token itself. Other users can see the arguments of a process: prefer the file.",
    ),
]
AgentIdOption = Annotated[
    str | None,
    typer.Option(
        "--agent-id",
        metavar="ID",
        help="1 to 63 lower-case letters, digits and hyphens. Default: made of the host's name.",
        show_default=False,
    ),
]
AgentAddressOption = Annotated[
    list[str] | None,
    typer.Option(
        "--agent-address",
        metavar="HOST:PORT",
        help="Where `run` finds the server, instead of where the server says; may be given again.",
    ),
]


HttpProxyOption = Annotated[
    str | None,
    typer.Option(
        "--http-proxy",
        metavar="URL",
        help="http://host:port of an HTTP CONNECT proxy. That of the environment is not used.",
    ),
]


@app.callback()
def agent(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """The Fleetwright agent of this host.

    Enrol the host once, with a token that an administrator handed out,
    then let a service manager run it:

        fleetwright-agent enroll --server fleet.example.com --token-file token.txt

        fleetwright-agent run

    What a server may ask of this host stands in policy.toml in the state
    folder. It is yours; the server cannot change it.
    """


@app.command()
def enroll(
    server: Annotated[
        str,
        typer.Option("--server", metavar="HOST[:PORT]", help="The enrolment address; port 7445 by default."),
    ],
    token_file: TokenFileOption = None,
    token: TokenOption = None,
    agent_id: AgentIdOption = None,
    state: StateOption = None,
    agent_address: AgentAddressOption = None,
    http_proxy: HttpProxyOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the identity that the state folder holds, and its root.")
    ] = False,
    log_level: LogLevelOption = "warning",
) -> None:
    """Give this host an identity.

    The key is made here and never leaves. The server is trusted only if it
    shows the root that the token names. A default policy.toml is written
    unless there is one.

        fleetwright-agent enroll --server fleet.example.com --token-file FILE

        fleetwright-agent enroll --server 10.0.0.5:7445 --agent-id web-1 \\
            --state ./state --token-file - < FILE
    """
    _configure(log_level)
    folder = StateFolder(state or default_state())
    wanted = _Wanted(server, token_file, token, agent_id, agent_address or [], http_proxy)
    _enroll(folder, wanted, force=force)
    suffix = "" if folder.path == default_state() else f" --state {folder.path}"
    typer.echo(f"Next:   fleetwright-agent run{suffix}")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked of an enrolment on the command line."""

    server: str
    token_file: Path | None
    token: str | None
    agent_id: str | None
    agent_addresses: Sequence[str]
    http_proxy: str | None


def _enroll(folder: StateFolder, wanted: _Wanted, *, force: bool) -> None:
    addresses = tuple(host_and_port(one, "--agent-address") for one in wanted.agent_addresses)
    check_proxy(wanted.http_proxy)
    server_address = host_and_port(wanted.server, "--server", DEFAULT_ENROLLMENT_PORT)
    chosen, derived = chosen_agent_id(wanted.agent_id)
    token = join_token(wanted.token_file, wanted.token)
    if derived:
        typer.echo(f"Agent id: {chosen}, made of this host's name (choose another with --agent-id)")
    result = asyncio.run(
        enroll_host(
            folder,
            server_address,
            token,
            chosen,
            addresses=addresses,
            replace_identity=force,
            http_proxy=wanted.http_proxy,
        )
    )
    identity = result.identity
    typer.echo(
        f"Enrolled as {identity.spiffe_id}, certificate good until {identity.not_after:%Y-%m-%d %H:%M:%SZ}"
    )
    typer.echo(f"State:  {folder.path}")
    kept = "" if result.policy_written else " (kept as it was)"
    typer.echo(f"Policy: {folder.policy}{kept}; read it: it says what a server may ask of this host")
    typer.echo(f"Root:   {_root_line(folder, result.root)}")


def _root_line(folder: StateFolder, kept: RootKept) -> str:
    """Say by what packages are judged from now on."""
    if kept is RootKept.NONE:
        return (
            "none, so no package can be installed: the server releases none yet. Once it does, enrol again "
            "with --force, or name a root of your own in the policy"
        )
    if kept is RootKept.ANOTHER:
        return (
            f"{folder.trusted_root} (kept as it was, and the server gave another one: compare them; --force "
            "takes the server's)"
        )
    suffix = "" if kept is RootKept.WRITTEN else " (kept as it was)"
    return f"{folder.trusted_root}{suffix}; packages are judged by it, unless the policy names another one"


@app.command()
def run(
    state: StateOption = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="HOST[:PORT]",
            help="Enrol here first, where the state folder holds no identity yet; needs a join token.",
        ),
    ] = None,
    token_file: TokenFileOption = None,
    token: TokenOption = None,
    agent_id: AgentIdOption = None,
    agent_address: AgentAddressOption = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="The policy file, instead of policy.toml in the state folder.",
            show_default=False,
        ),
    ] = None,
    http_proxy: HttpProxyOption = None,
    log_level: LogLevelOption = "info",
) -> None:
    """Run the agent until SIGTERM or SIGINT, which it answers with an orderly leave and exit status 0.

    The log goes to standard error, as JSON where that is not a terminal. With --server and a token
    the host is enrolled first, once: from then on the two are not looked at.

        fleetwright-agent run

        fleetwright-agent run --server fleet.example.com --token-file token.txt

        fleetwright-agent run --state ./state --policy /etc/fleetwright.toml
    """
    _configure(log_level)
    folder = StateFolder(state or default_state())
    if server is not None and not enrolled(folder):
        wanted = _Wanted(server, token_file, token, agent_id, agent_address or [], http_proxy)
        _enroll(folder, wanted, force=False)
    _arm_failpoints()
    check_proxy(http_proxy)
    config = AgentConfig(agent_version=program_version(), http_proxy=http_proxy)
    run_host(folder, policy or folder.policy, config)


@app.command()
def status(
    state: StateOption = None,
    output: Annotated[
        OutputFormat, typer.Option("-o", "--output", help="table or json.")
    ] = OutputFormat.TABLE,
) -> None:
    """Tell who this agent is, and what waits in its journal.

    Reads only, and so may run beside the agent.

        fleetwright-agent status

        fleetwright-agent status -o json | jq .certificate.not_after
    """
    folder = StateFolder(state or default_state())
    folder.check()
    found = read_status(folder, datetime.now(UTC))
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(found, indent=2))
    else:
        Console().print(_table(found))


def _table(found: dict[str, Any]) -> Table:
    certificate = found["certificate"]
    journal = found["journal"] or dict.fromkeys(("journaled", "running", "finished", "queued_points"), "?")
    expiry = _time(certificate["not_after"]) + ("  EXPIRED: enrol again" if certificate["expired"] else "")
    table = Table(show_header=False, box=None)
    for name, value in (
        ("agent", found["agent_id"]),
        ("identity", found["spiffe_id"]),
        ("running", f"process {found['running_process']}" if found["running_process"] else "no"),
        ("connected", f"session {found['session_epoch']}" if found["connected"] else "no"),
        ("servers", ", ".join(found["agent_addresses"])),
        ("certificate until", expiry),
        ("renewal after", _time(certificate["renew_after"])),
        ("renewal under way", "yes" if found["next_certificate"] else "no"),
        ("attempts to run", str(journal["journaled"])),
        ("attempts running", str(journal["running"])),
        ("results to report", str(journal["finished"])),
        ("disk", "FULL: no work is taken until there is room" if found["disk_full"] else "has room"),
        ("telemetry queued", f"{journal['queued_points']} points"),
        ("root of packages", found["trusted_root"] or "none: enrol again once the server has one"),
        ("packages installed", _packages(found["packages"])),
        ("damaged journals", ", ".join(found["journals_set_aside"]) or "none"),
        ("state", found["state"]),
    ):
        table.add_row(name, value)
    return table


def _packages(found: Sequence[dict[str, str]]) -> str:
    return ", ".join(f"{one['name']} {one['version']}" for one in found) or "none"


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%SZ}"


def _arm_failpoints() -> None:
    """Arm what a test asks for; an unknown name is an error, or the test would test nothing."""
    try:
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _configure(level: str) -> None:
    if level not in LEVELS:
        raise typer.BadParameter(f"{level!r} is not one of {', '.join(LEVELS)}", param_hint="--log-level")
    configure_logging(level)
