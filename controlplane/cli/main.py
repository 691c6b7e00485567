"""The ``fleetwright`` command: its nouns and verbs, each in a module that is imported when it is called."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from controlplane import VERSION
from controlplane.cli.failures import Guarded


class Place(NamedTuple):
    """Where a command is, and what the list of commands says of it."""

    module: str
    help: str


NOUNS = MappingProxyType(
    {
        "agents": Place(
            "agents", "Who exists, and how they are: list, show, label, group, clear-clone, delete, watch."
        ),
        "tasks": Place(
            "tasks", "Work for agents: create, list, show, output, events, wait, cancel, replay, watch."
        ),
        "explain": Place("explain", "Why a task or an agent is in its state, and what is next: task, agent."),
        "packages": Place(
            "packages",
            "From an artefact to agents: upload, build, pipelines, watch, log, execute, cancel, retry, list, "
            "show, findings, download, export, verify, deploy, deployments, exceptions.",
        ),
        "advisories": Place(
            "advisories", "What is known of vulnerabilities, from exports of OSV: import, status."
        ),
        "telemetry": Place("telemetry", "What agents measured: query, watch."),
        "tokens": Place("tokens", "Enrolment tokens, which let agents in: create, list, revoke."),
        "identities": Place("identities", "Operators and integrators: issue, list, revoke."),
        "server": Place("server_questions", "The server itself: info, processes."),
        "trust": Place(
            "trust",
            "The keys by which packages are released: init, key, status, draft-root, draft-targets, tell, "
            "sign, install.",
        ),
        "contexts": Place("contexts", "The servers that you know: add, list, use, show, remove."),
    }
)
"""Commands with verbs; ``controlplane.cli.<module>`` has them as ``app``."""

VERBS = MappingProxyType(
    {
        "init": Place("server", "Make a data folder for a server on this machine."),
        "add-host": Place("server", "Add names to the server's certificates."),
        "serve": Place("server", "Serve agents, administrators and enrolment."),
        "backup": Place("backup", "Copy a server's data folder into one file, while it runs."),
        "restore": Place("backup", "Put such a file back into a data folder."),
        "doctor": Place("doctor.command", "Look at a server and its machine, and say what to do."),
        "version": Place("version", "Print the version of this command and of the server."),
    }
)
"""Commands that stand alone; ``app`` of ``controlplane.cli.<module>`` has them by their name."""


@cache
def _loaded(name: str) -> Any:
    place = NOUNS.get(name) or VERBS[name]
    # A client's standard error is for people, and a server's for a program that reads its log.
    _silence_grpc(keep_errors=place.module == "server")
    group = typer.main.get_group(import_module(f"controlplane.cli.{place.module}").app)
    command = group if name in NOUNS else group.commands[name]
    command.name = name
    return command


def _silence_grpc(*, keep_errors: bool) -> None:
    from controlplane.settings import silence_grpc  # not at the top: it takes longer than all of --help

    silence_grpc(keep_errors=keep_errors)


class Root(Guarded):
    """The root of the command: lists by its tables, and imports only what is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=place.help) for name, place in {**NOUNS, **VERBS}.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command by its name and import it, or say which one was meant."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, _loaded(name) if name else None, rest


app = typer.Typer(
    name="fleetwright",
    cls=Root,
    help="Control a fleet of endpoints.\n\n\b\nA first server, from nothing:\n"
    "  fleetwright init --data-dir ./site --host fleet.example.org\n"
    "  fleetwright serve --data-dir ./site\n"
    "  fleetwright tokens create --data-dir ./site\n\n"
    "\b\nA server elsewhere, from now on by its name:\n"
    "  fleetwright contexts add prod --server fleet.example.org:7444 --identity ./operator-night-shift\n"
    "  fleetwright agents list --context prod",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(VERSION)
        raise typer.Exit


def main() -> None:
    """Run the command."""
    app()
