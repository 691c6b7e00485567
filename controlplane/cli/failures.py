"""How the command ends: one place that turns whatever went wrong into a message and an exit status.

Commands raise ``CommandFailed``, or let ``OSError``, the errors of the client library and those of the
data folder pass; nothing else knows about standard error or statuses. A defect keeps its traceback.
"""

from __future__ import annotations

import _thread
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperGroup

_INSIST_SECONDS = 2.0
"""After which a Ctrl-C that did not end the command is raised once more."""


class Exit(IntEnum):
    """Exit statuses of ``fleetwright``; programs decide by them, so they keep their meaning."""

    DONE = 0
    FAILED = 1
    """Refused, or failed, on the server's or on this machine's side."""
    USAGE = 2
    """Wrong options, or an argument that the server does not take."""
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    """The identity is not accepted, or may not do this; or the server is not the one that it trusts."""
    UNREACHABLE = 5
    """No server, or none that answers in time; the same command may work later."""
    INTERRUPTED = 130
    CLOSED_PIPE = 141


@dataclass
class CommandFailed(Exception):
    """The command cannot do what was asked; ``message`` names what is wrong and the remedy.

    ``code`` and ``reason`` are the server's, where it answered; ``violations`` are pairs of a field of the
    request and what is wrong with it.
    """

    message: str
    exit: Exit = Exit.FAILED
    code: str = ""
    reason: str = ""
    violations: Sequence[tuple[str, str]] = ()
    retry_after: timedelta | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    hint: str = ""
    """More for people, under the message."""

    def __str__(self) -> str:
        return self.message

    def as_json(self) -> dict[str, Any]:
        """Return the object that stands on standard error with ``-o json``."""
        return {
            "code": self.code or self.exit.name,
            "reason": self.reason,
            "message": self.message,
            "violations": [{"field": name, "description": text} for name, text in self.violations],
            "retryAfter": None if self.retry_after is None else f"{self.retry_after.total_seconds():g}s",
            "metadata": self.metadata,
            "exitStatus": int(self.exit),
        }


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON, also one that cannot be parsed."""
    words = list(arguments)
    spelled = {"-ojson", "-o=json", "--output=json"}
    return not spelled.isdisjoint(words) or any(
        flag in {"-o", "--output"} and value == "json" for flag, value in pairwise(words)
    )


def tell(failure: CommandFailed, *, as_json: bool) -> None:
    """Say on standard error what went wrong."""
    if as_json:
        typer.echo(json.dumps({"error": failure.as_json()}), err=True)
    else:
        text = "\n".join(filter(None, (f"error: {failure.message}", failure.hint)))
        # What a server quotes may act on a terminal.
        typer.echo("".join(char if char.isprintable() or char == "\n" else "?" for char in text), err=True)


def understand(error: Exception) -> CommandFailed | None:
    """Return what an error means to whoever typed the command; None for a defect of ours."""
    # Not at the top: `fleetwright --help` shall not wait for gRPC and cryptography.
    from fleetwright.errors import AddressError, IdentityError

    from controlplane.trust.layout import DataFolderError

    if isinstance(error, CommandFailed):
        return error
    if isinstance(error, typer.TyperException):
        return CommandFailed(_usage(error), Exit.USAGE if error.exit_code == Exit.USAGE else Exit.FAILED)
    if isinstance(error, IdentityError):
        return CommandFailed(str(error), Exit.NOT_ALLOWED)
    if isinstance(error, AddressError):
        return CommandFailed(str(error), Exit.USAGE)
    if isinstance(error, DataFolderError):
        return CommandFailed(str(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return CommandFailed(f"{where}{error.strerror or error}")
    return None


def _usage(error: typer.TyperException) -> str:
    text = error.format_message().replace(": Value error, ", ": ")  # pydantic's words, which add nothing
    context = getattr(error, "ctx", None)
    if context is None:
        return text
    return f"{text}\nSee `{context.command_path} --help`."


class _StandardOutput(io.FileIO):
    """Standard output, which says that it is what could not be written."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from None


class Guarded(TyperGroup):
    """The group at the root of the command: every failure below it is told once, in words."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a reader that went away ends it quietly, as it ends other programs."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _abandon_output()
            raise typer.Exit(Exit.CLOSED_PIPE) from None
        return result

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command line and end the process with its status."""
        words = sys.argv[1:] if args is None else list(args)
        _prepare_output()
        try:
            with _interruptible():
                ended = super().main(args, *rest, **{**extra, "standalone_mode": False})
        except KeyboardInterrupt:
            raise SystemExit(Exit.INTERRUPTED) from None
        except typer.Abort:  # the end of standard input, where something was asked
            raise SystemExit(Exit.FAILED) from None
        except Exception as error:  # noqa: BLE001 - the last stop; a defect is raised again
            raise SystemExit(_told(error, words)) from None
        raise SystemExit(ended if isinstance(ended, int) else Exit.DONE)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let one Ctrl-C end the command, wherever it falls.

    An exception that a signal raises while the main thread is in a callback of gRPC's compiled code goes
    nowhere: it is printed, if at all, and the call waits on. So it is raised once more.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # whoever started the command wants it so
        return
    insisting = threading.Timer(_INSIST_SECONDS, _thread.interrupt_main)
    insisting.daemon = True

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        insisting.start()
        raise KeyboardInterrupt

    try:
        former = signal.signal(signal.SIGINT, interrupt)
    except ValueError:  # not the main thread, which alone hears signals: a test has called us
        yield
        return
    try:
        yield
    finally:
        insisting.cancel()
        signal.signal(signal.SIGINT, former)


def _told(error: Exception, words: Sequence[str]) -> Exit:
    """Say what went wrong and return the status for it; a defect is raised again."""
    if type(error).__name__ == "NoArgsIsHelpError":  # typer does not publish its class
        typer.echo(str(error), err=True)
        return Exit.USAGE
    failure = understand(error)
    if failure is None:
        raise error
    try:
        sys.stdout.flush()
    except OSError:
        _abandon_output()
    with suppress(OSError):  # who read it went away: the status still says what happened
        tell(failure, as_json=wants_json(words))
    return failure.exit


def _prepare_output() -> None:
    """Make standard output and error take whatever is printed."""
    if sys.stderr is None:  # closed by whoever started the command
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    if sys.stdout is None:
        # Nothing that is opened later may be taken for it; this one refuses what is written, as it would.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        interactive, encoding = os.isatty(1), getattr(sys.stdout, "encoding", None) or "utf-8"
        raw = io.BufferedWriter(_StandardOutput(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(raw, encoding=encoding, line_buffering=interactive)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows its number.
            stream.reconfigure(errors="backslashreplace")


def _abandon_output() -> None:
    """Throw away what is still buffered: it would fail again, with a traceback, when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
