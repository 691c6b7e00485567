"""``fleetwright-sim``: the simulated fleet's command line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from agent_sim import failpoints
from agent_sim.fleet.fleet import FleetConfig
from agent_sim.fleet.machine import TooFewFilesError, allow_connections
from agent_sim.fleet.profiles import parse_shares
from agent_sim.fleet.running import Outputs, run_fleet
from agent_sim.protocol.errors import AgentError
from agent_sim.protocol.join_token import JoinToken

app = typer.Typer(
    name="fleetwright-sim",
    help="Run simulated agents: they do nothing to this machine, and what they report says so.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _sim() -> None:
    """Run simulated agents against a Fleetwright server."""


@app.command()
def run(
    *,
    agents: Annotated[int, typer.Option(min=1, max=100_000, help="How many agents.")],
    enrollment_address: Annotated[
        str, typer.Option(help="host:port of the enrolment listener.")
    ] = "localhost:7445",
    server_address: Annotated[
        list[str] | None,
        typer.Option(help="host:port of an agents' listener, repeatable; default: what enrolment says."),
    ] = None,
    join_token: Annotated[
        str | None,
        typer.Option(
            envvar="FLEETWRIGHT_JOIN_TOKEN",
            help="Join token for all agents. Visible in the process list: prefer --join-token-file.",
        ),
    ] = None,
    join_token_file: Annotated[Path | None, typer.Option(help="File with the join token.")] = None,
    identities: Annotated[
        Path | None, typer.Option(help="Folder to keep identities in and to use them again from.")
    ] = None,
    journals: Annotated[
        Path | None,
        typer.Option(help="Folder to keep journals in, so that a killed fleet goes on; default: in memory."),
    ] = None,
    id_prefix: Annotated[str, typer.Option(help="Agent ids are PREFIX-1 and so on.")] = "sim",
    profile: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SHARE, repeatable: healthy, flaky, slow-reader, hung, clock-skewed."),
    ] = None,
    seed: Annotated[str, typer.Option(help="The same seed gives the same agents.")] = "1",
    duration: Annotated[
        float | None, typer.Option(min=0, help="Seconds after connecting; default: until SIGTERM.")
    ] = None,
    connect_concurrency: Annotated[
        int, typer.Option(min=1, help="How many agents enrol or connect at the same time.")
    ] = 32,
    effects: Annotated[Path | None, typer.Option(help="Append 'task attempt agent' for each effect.")] = None,
    receipts: Annotated[
        Path | None, typer.Option(help="Write JSON lines with the time of each assignment's receipt.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write a JSON file once all agents are connected.")
    ] = None,
    trusted_root: Annotated[
        Path | None,
        typer.Option(
            help="A root of the repository by which agents verify the packages that they are told to "
            "install, each for itself; default: the one that comes at enrolment. No file is installed."
        ),
    ] = None,
    packages: Annotated[
        Path | None,
        typer.Option(help="Folder to keep what each agent has seen of the repository; default: forgotten."),
    ] = None,
) -> None:
    """Enrol and connect agents, run them, and print a JSON summary when they have left."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        allow_connections(agents)
        config = FleetConfig(
            agents=agents,
            shares=parse_shares(profile or []),
            seed=seed,
            id_prefix=id_prefix,
            server_addresses=tuple(server_address or ()),
            enrollment_address=enrollment_address,
            join_token=_token(join_token, join_token_file),
            connect_concurrency=connect_concurrency,
            identities=identities,
            journals=journals,
            trusted_root=trusted_root.read_bytes() if trusted_root else None,
            packages=packages,
        )
        outputs = Outputs(effects, receipts, ready_file)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            summary = runner.run(run_fleet(config, outputs, duration))
    except (AgentError, TooFewFilesError, OSError, ValueError) as error:
        typer.echo(f"fleetwright-sim: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(json.dumps(summary, indent=2))
    if summary["connected_once"] < agents or summary["stopped_early"]:
        raise typer.Exit(1)


def _token(text: str | None, file: Path | None) -> JoinToken | None:
    if file is not None:
        text = file.read_text()
    return JoinToken.parse(text) if text else None


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
