"""What a task is to do: from the words of a command line to the contract's messages."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

import typer
from fleetwright.v1 import task_service_pb2, work_pb2

from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.values import duration, duration_message, labels

SCRIPT_BYTES: Final = 262_144
"""Largest script, as the contract has it: told before anything is sent."""

LARGEST_LOG_BYTES: Final = 16 * 1024 * 1024
"""LogsSpec.max_bytes takes no more."""

ENVIRONMENT_FILE_BYTES: Final = 1024 * 1024

DEFAULT_INTERPRETER: Final = "sh"


@dataclass(frozen=True, slots=True)
class Work:
    """The kinds of work, as options of ``tasks create``; exactly one is given."""

    script: str | None = None
    """The text of a script."""
    script_file: Path | None = None
    """Its file; ``-`` is standard input."""
    inventory: bool = False
    logs: str | None = None
    """Path of the log on the agent's host."""
    echo: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptDetails:
    """What belongs to a script alone."""

    interpreter: str | None = None
    arguments: Sequence[str] = ()
    environment: Sequence[str] = ()
    """KEY=VALUE each."""
    environment_file: Path | None = None
    user: str | None = None
    time_limit: str | None = None


@dataclass(frozen=True, slots=True)
class OtherDetails:
    """What belongs to inventories and logs alone."""

    packages: bool = False
    contains: str | None = None
    max_bytes: int | None = None


def spec(work: Work, script: ScriptDetails, other: OtherDetails) -> work_pb2.TaskSpec:
    """Return the work. Raises ``typer.BadParameter`` where options do not fit together, and ``OSError``."""
    kind = _kind(work)
    _check_belongings(kind, script, other)
    if kind == "script":
        return work_pb2.TaskSpec(script=_script(work, script))
    if kind == "inventory":
        return work_pb2.TaskSpec(inventory=work_pb2.InventorySpec(include_packages=other.packages))
    if kind == "logs":
        return work_pb2.TaskSpec(
            logs=work_pb2.LogsSpec(
                path=work.logs or "", contains=other.contains or "", max_bytes=other.max_bytes or 0
            )
        )
    return work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=(work.echo or "").encode()))


def _kind(work: Work) -> str:
    given = {
        "--script": work.script is not None,
        "--script-file": work.script_file is not None,
        "--inventory": work.inventory,
        "--logs": work.logs is not None,
        "--echo": work.echo is not None,
    }
    chosen = [option for option, there in given.items() if there]
    if len(chosen) != 1:
        said = f"there are {', '.join(chosen)}" if chosen else "there is none of them"
        raise typer.BadParameter(f"say what to do with one of {', '.join(given)}; {said}")
    return chosen[0].lstrip("-").removesuffix("-file")


def _check_belongings(kind: str, script: ScriptDetails, other: OtherDetails) -> None:
    belongs = {
        "--interpreter": ("script", script.interpreter is not None),
        "--arg": ("script", bool(script.arguments)),
        "--env": ("script", bool(script.environment)),
        "--env-file": ("script", script.environment_file is not None),
        "--user": ("script", script.user is not None),
        "--time-limit": ("script", script.time_limit is not None),
        "--packages": ("inventory", other.packages),
        "--contains": ("logs", other.contains is not None),
        "--max-bytes": ("logs", other.max_bytes is not None),
    }
    for option, (owner, given) in belongs.items():
        if given and owner != kind:
            raise typer.BadParameter(f"{option} belongs to {owner} work, and this is {kind}: leave it out")


def _script(work: Work, details: ScriptDetails) -> work_pb2.ScriptSpec:
    if _is_standard_input(work.script_file) and _is_standard_input(details.environment_file):
        raise typer.BadParameter(
            "--script-file - and --env-file -: standard input can be read once: give one of them as a file"
        )
    body = work.script if work.script is not None else _text(work.script_file, SCRIPT_BYTES, "--script-file")
    environment = _environment_file(details.environment_file)
    environment.update(labels(details.environment, "--env", secret=True))
    made = work_pb2.ScriptSpec(
        interpreter=details.interpreter or _interpreter(body),
        body=body,
        arguments=details.arguments,
        environment=environment,
        user=details.user or "",
    )
    if details.time_limit is not None:
        made.time_limit.CopyFrom(duration_message(duration(details.time_limit)))
    return made


def _interpreter(body: str) -> str:
    """Return the interpreter that a script's first line names (``#!/usr/bin/env python3``), or sh."""
    first = body.partition("\n")[0]
    if not first.startswith("#!"):
        return DEFAULT_INTERPRETER
    words = first[2:].split()
    names = [Path(word).name for word in words if not word.startswith("-")]
    if names and names[0] == "env":
        del names[0]
    return names[0] if names else DEFAULT_INTERPRETER


def _environment_file(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path, ENVIRONMENT_FILE_BYTES, "--env-file").splitlines(), 1):
        words = _words(line, path, number)
        if words:
            found.update(_pair(words, path, number))
    return found


def _words(line: str, path: Path, number: int) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise typer.BadParameter(f"--env-file {path}, line {number}: {error}") from None


def _pair(words: list[str], path: Path, number: int) -> Iterable[tuple[str, str]]:
    key, equals, value = words[0].partition("=")
    if len(words) > 1 or not equals or not key:
        # The line itself is not shown: it may hold a secret.
        raise typer.BadParameter(
            f"--env-file {path}, line {number}: write KEY=VALUE, with quotes round a value with blanks"
        )
    return [(key, value)]


def _text(path: Path | None, most: int, option: str) -> str:
    if path is None:
        return ""
    with _opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise CommandFailed(f"{option} {path}: more than {most:,} bytes", Exit.USAGE)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CommandFailed(
            f"{option} {path}: not UTF-8 text (byte {error.start:,}): scripts are text", Exit.USAGE
        ) from None


def _opened(path: Path) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdin.buffer) if _is_standard_input(path) else path.open("rb")


def _is_standard_input(path: Path | None) -> bool:
    return str(path) == "-"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a task is delivered; None leaves it to the server."""

    priority: int | None = None
    queue_time: str | None = None
    run_limit: str | None = None
    idempotent: bool = False
    max_attempts: int | None = None


class IfOffline(StrEnum):
    """What becomes of a task while its agent is away."""

    QUEUE = "queue"
    SKIP = "skip"
    LATEST = "latest"
    WINDOW = "window"


_POLICIES: Final = {
    IfOffline.QUEUE: task_service_pb2.OFFLINE_POLICY_QUEUE,
    IfOffline.SKIP: task_service_pb2.OFFLINE_POLICY_SKIP,
    IfOffline.LATEST: task_service_pb2.OFFLINE_POLICY_LATEST,
    IfOffline.WINDOW: task_service_pb2.OFFLINE_POLICY_WINDOW,
}

DEFAULT_ZONE: Final = "UTC"
DEFAULT_WINDOW: Final = "1h"


@dataclass(frozen=True, slots=True)
class Absence:
    """The policy for an agent that is away, as options; a key or a window says which one is meant."""

    policy: IfOffline | None = None
    supersede_key: str | None = None
    window: str | None = None
    """A cron expression."""
    window_zone: str | None = None
    window_duration: str | None = None


WAITS: Final = Absence()
"""No word about it: it waits, as the server's default is."""


def options(delivery: Delivery, absence: Absence = WAITS) -> task_service_pb2.TaskOptions:
    """Return the options of a task. Raises ``typer.BadParameter``."""
    made = task_service_pb2.TaskOptions(
        priority=delivery.priority or 0,
        idempotent=delivery.idempotent,
        max_attempts=delivery.max_attempts or 0,
    )
    if delivery.queue_time is not None:
        made.queue_time.CopyFrom(duration_message(duration(delivery.queue_time)))
    if delivery.run_limit is not None:
        made.run_limit.CopyFrom(duration_message(duration(delivery.run_limit)))
    _add_absence(made, absence)
    return made


def _add_absence(made: task_service_pb2.TaskOptions, absence: Absence) -> None:
    belongs = {
        "--supersede-key": (IfOffline.LATEST, absence.supersede_key),
        "--window": (IfOffline.WINDOW, absence.window),
        "--window-zone": (IfOffline.WINDOW, absence.window_zone),
        "--window-duration": (IfOffline.WINDOW, absence.window_duration),
    }
    policy = absence.policy
    for option, (owner, given) in belongs.items():
        if given is None:
            continue
        policy = policy or owner
        if policy is not owner:
            raise typer.BadParameter(f"{option} belongs to --if-offline {owner}, and this is {policy}")
    if policy is IfOffline.LATEST and not absence.supersede_key:
        raise typer.BadParameter("--if-offline latest needs --supersede-key: of what the task is a version")
    if policy is IfOffline.WINDOW and not absence.window:
        raise typer.BadParameter("--if-offline window needs --window: when it opens, such as '0 2 * * SAT'")
    if policy is None:
        return
    made.offline_policy = _POLICIES[policy]
    made.supersede_key = absence.supersede_key or ""
    if absence.window:
        made.window.cron = absence.window
        made.window.time_zone = absence.window_zone or DEFAULT_ZONE
        made.window.duration.CopyFrom(duration_message(duration(absence.window_duration or DEFAULT_WINDOW)))
