"""What every command that calls a server has in common: its options, its connection, its failures.

    @app.command("show")
    @calling
    def show(client: Client, output: Output, name: Annotated[str, typer.Argument()]) -> None:
        response = client.agents.GetAgent(GetAgentRequest(name=name))
        output.one(response.agent, COLUMNS)

A command asks for ``Client`` and ``Output`` by the types of its parameters; their options are added to its
own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import grpc
import typer
from fleetwright.errors import Failure
from rich.cells import cell_len

from controlplane.cli import completion
from controlplane.cli.connection import CALL_TIMEOUT, Client, Options
from controlplane.cli.diagnosis import PATIENCE, diagnose
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Format, Output, clean
from controlplane.cli.values import duration
from controlplane.settings import ClientSettings

LONGEST_TIMEOUT = timedelta(days=365)
"""gRPC counts in nanoseconds, and takes what is far beyond for no time at all."""

_CLIENT_OPTIONS: dict[str, tuple[Any, Any]] = {
    "context": (
        Annotated[
            str | None,
            typer.Option(
                metavar="NAME",
                help="Context to use, from `fleetwright contexts`.",
                autocompletion=completion.contexts,
            ),
        ],
        None,
    ),
    "server": (
        Annotated[
            str | None, typer.Option(metavar="HOST:PORT", help="The server's port for administrators.")
        ],
        None,
    ),
    "identity": (
        Annotated[
            Path | None,
            typer.Option(metavar="FOLDER", help="Who calls: a folder with key.pem, cert.pem and ca.pem."),
        ],
        None,
    ),
    "data_dir": (
        Annotated[
            Path | None,
            typer.Option(
                metavar="FOLDER",
                help="Data folder of a server on this machine: its first administrator calls.",
            ),
        ],
        None,
    ),
    "timeout": (
        Annotated[
            str, typer.Option(metavar="DURATION", help="How long one call may take; a watch has no limit.")
        ],
        f"{CALL_TIMEOUT.total_seconds():.0f}s",
    ),
}
_OUTPUT_OPTIONS: dict[str, tuple[Any, Any]] = {
    "output_format": (
        Annotated[
            Format,
            typer.Option("--output", "-o", metavar="table|wide|json|yaml|name", help="What to print."),
        ],
        Format.TABLE,
    ),
}

_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: Exit.USAGE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: Exit.NOT_ALLOWED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.NOT_ALLOWED,
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
}
_BEFORE_CARET = 60
UNANSWERED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Nobody knows whether the server did what was asked, or whether there is one."""


def noun(text: str) -> typer.Typer:
    """Return the group of one noun's verbs, with its help."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


def calling(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its connection and its output, with the options that decide them."""
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    clients = [name for name, hint in hints.items() if hint is Client]
    outputs = [name for name, hint in hints.items() if hint is Output]
    added = {**(_CLIENT_OPTIONS if clients else {}), **(_OUTPUT_OPTIONS if outputs else {})}

    def run(**given: Any) -> None:
        _check_text(given)
        chosen = {name: given.pop(name) for name in added}
        if outputs:
            given[outputs[0]] = Output(chosen.pop("output_format"))
        if not clients:
            command(**given)
            return
        chosen["timeout"] = call_timeout(chosen["timeout"])
        with Client.of(Options(**chosen), ClientSettings()) as client:
            try:
                command(**given, **{clients[0]: client})
            except grpc.RpcError as error:
                failed = explain(Failure.of(error), client)
                raise pointed(
                    failed, {name.removesuffix("_text"): text for name, text in given.items()}
                ) from None

    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name not in {*clients, *outputs}
    ]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for name, (hint, default) in added.items()
    ]
    run.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *more]}
    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    return run


def explain(failure: Failure, client: Client) -> CommandFailed:
    """Return what a failed call means to whoever typed the command."""
    if not failure.answered and failure.code in UNANSWERED:
        patience = min(PATIENCE, client.timeout)
        return diagnose(client.target.server, client.target.identity, failure, datetime.now(UTC), patience)
    message = failure.message or failure.code.name
    if not failure.answered:
        message = f"server {client.target.server}: {failure.code.name}: {message}"
    if failure.retry_after is not None and failure.code is not grpc.StatusCode.INVALID_ARGUMENT:
        message += f" (try again in {max(failure.retry_after.total_seconds(), 0.1):.1f} s)"
    return CommandFailed(
        message,
        _CODES.get(failure.code, Exit.FAILED),
        failure.code.name,
        failure.reason,
        failure.violations,
        failure.retry_after,
        dict(failure.metadata),
    )


def pointed(failed: CommandFailed, given: Mapping[str, Any]) -> CommandFailed:
    """Add to a refused filter where in it the mistake is, if the server says so.

    ``given`` are the texts by the field of the request that the server names.
    """
    position = failed.metadata.get("position", "")
    text = given.get(failed.violations[0][0]) if failed.violations else None
    if not position.isdecimal() or not isinstance(text, str) or int(position) > len(text):
        return failed
    begin = max(0, int(position) - _BEFORE_CARET)
    shown = clean(text[begin : begin + 2 * _BEFORE_CARET])
    caret = " " * cell_len(clean(text[begin : int(position)]))
    failed.hint = f"  {shown}\n  {caret}^"
    return failed


def _check_text(given: Mapping[str, Any]) -> None:
    """Refuse words that the contract cannot carry; the names of files may be any bytes."""
    for name, value in given.items():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and not _is_utf8(word):
                raise typer.BadParameter(
                    "its bytes are not text in UTF-8, and the server takes no other: write it in UTF-8",
                    param_hint=name.removesuffix("_text").replace("_", "-"),
                )


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # what is no UTF-8 on the command line comes as surrogates
        return False
    return True


def call_timeout(text: str) -> timedelta:
    """Read how long one call may take. Raises ``typer.BadParameter`` for what no call can have."""
    found = duration(text, "--timeout")
    if not timedelta() < found <= LONGEST_TIMEOUT:
        raise typer.BadParameter(
            f"{text!r}: give a call some time, such as 15s, and at most {LONGEST_TIMEOUT.days}d",
            param_hint="--timeout",
        )
    return found
