"""``fleetwright contexts``: the servers that a person knows, each under a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from fleetwright.client import Identity, check_address

from controlplane.cli import completion
from controlplane.cli.calling import calling, noun
from controlplane.cli.contexts_file import Context, Contexts, check_name, edit, written_out
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Output
from controlplane.settings import ClientSettings

app = noun(
    "The servers that you know: add, list, use, show, remove.\n\n"
    "A context is a server, and who calls it, under a name. Every command takes --context NAME; without it "
    "and without FLEETWRIGHT_CONTEXT the current one is used. Contexts are kept in "
    "~/.config/fleetwright/config.toml, or where FLEETWRIGHT_CONFIG says.\n\n"
    "\b\nExamples:\n"
    "  fleetwright contexts add prod --server fleet.example.org:7444 --identity ./operator-night-shift\n"
    "  fleetwright contexts use prod\n"
    "  fleetwright agents list --context test"
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a context.", autocompletion=completion.contexts)
]


@dataclass(frozen=True)
class _Shown:
    """A context as it is printed."""

    context: Context
    current: bool

    @property
    def name(self) -> str:
        return self.context.name

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "server": self.context.server,
            "identity": str(self.context.identity),
            "current": self.current,
        }


@dataclass(frozen=True)
class _List:
    """What ``contexts list`` prints."""

    contexts: Sequence[_Shown]

    def as_dict(self) -> dict[str, Any]:
        return {"contexts": [shown.as_dict() for shown in self.contexts]}


_COLUMNS: list[Column[_Shown]] = [
    Column("CURRENT", lambda shown: "*" if shown.current else ""),
    Column("NAME", lambda shown: shown.name),
    Column("SERVER", lambda shown: shown.context.server),
    Column("IDENTITY", lambda shown: str(shown.context.identity)),
]
_LINES = [replace(column, title=column.title.capitalize()) for column in _COLUMNS]


@app.command("add")
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name for it: letters, digits, dots, hyphens, underscores.")
    ],
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The server's port for administrators, 7444 by default.")
    ],
    identity: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Who calls: a folder with key.pem, cert.pem and ca.pem.")
    ],
    use: Annotated[bool, typer.Option("--use", help="Make it the current context.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of one with this name.")] = False,
) -> None:
    """Remember a server, and who calls it, under a name. The first one becomes the current one.

    \b
    Examples:
      fleetwright contexts add prod --server fleet.example.org:7444 --identity ./operator-night-shift
      fleetwright contexts add local --server localhost:7444 --identity site/identities/operator-admin --use
    """
    folder = written_out(identity).absolute()
    added = Context(check_name(name), check_address(server), folder)

    def with_it(contexts: Contexts) -> Contexts:
        if name in contexts.known and not replace:
            raise CommandFailed(f"context {name!r} exists already: give --replace, or another name")
        return contexts.with_context(added, current=use or not contexts.current)

    Identity.load(folder)  # raises where it cannot be used: better now than at the first call
    contexts = edit(_file(), with_it)
    now = ", and is the current one now" if contexts.current == name else ""
    typer.echo(f"context {name!r} added{now}: {contexts.path}")


@app.command("list")
@calling
def list_(output: Output) -> None:
    """List the contexts; the current one has a star.

    Example: fleetwright contexts list
    """
    contexts = _contexts()
    shown = [_Shown(contexts.known[name], name == contexts.current) for name in sorted(contexts.known)]
    output.items(_List(shown), "contexts", _COLUMNS, "no contexts yet: see `fleetwright contexts add --help`")


@app.command("use")
def use(name: Name) -> None:
    """Make a context the current one: what commands call where nothing else is said.

    Example: fleetwright contexts use prod
    """
    edit(_file(), lambda contexts: contexts.using(name))
    typer.echo(f"context {name!r} is the current one now")


@app.command("show")
@calling
def show(
    output: Output,
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a context; the current one without it.", autocompletion=completion.contexts
        ),
    ] = "",
) -> None:
    """Show one context, by default the current one.

    \b
    Examples:
      fleetwright contexts show
      fleetwright contexts show prod -o json
    """
    contexts = _contexts()
    chosen = name or contexts.current
    if not chosen:
        raise CommandFailed(
            "there is no current context: choose one with `fleetwright contexts use`", Exit.NOT_FOUND
        )
    output.one(_Shown(contexts.get(chosen), chosen == contexts.current), _LINES)


@app.command("remove")
def remove(name: Name) -> None:
    """Forget a context. Its identity's folder stays where it is.

    Example: fleetwright contexts remove test
    """
    edit(_file(), lambda contexts: contexts.without(name))
    typer.echo(f"context {name!r} removed")


def _contexts() -> Contexts:
    return Contexts.load(_file())


def _file() -> Path:
    return ClientSettings().config_file
