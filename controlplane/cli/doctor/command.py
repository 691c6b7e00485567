"""``fleetwright doctor`` itself: what is looked at, and how it is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from fleetwright.errors import AddressError
from pydantic import ValidationError
from rich.text import Text

from controlplane import preflight
from controlplane.cli.calling import call_timeout
from controlplane.cli.connection import LOCAL_SERVER, Options, Target, target_of
from controlplane.cli.doctor import certificates, database, folder, machine, server
from controlplane.cli.doctor.findings import Check, Finding, Level, fail, run, skip
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Format, Output, clean
from controlplane.settings import ClientSettings, Settings, explain
from controlplane.trust.layout import Layout

Part = Literal["machine", "data folder", "server"]

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red", Level.SKIP: "dim"}


app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _commands() -> None:
    """Let ``doctor`` have a name of its own although it is the only one."""


@app.command("doctor")
def doctor(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            readable=False,
            help="Data folder of a server on this machine. [default: FLEETWRIGHT_DATA_DIR, or "
            "./fleetwright-data]",
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="Context whose server is called.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--server", metavar="HOST:PORT", help="The server's port for administrators."),
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Who calls: a folder with key.pem, cert.pem and ca.pem."),
    ] = None,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="How long one call may take.")] = "15s",
    output_format: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="What to print.")
    ] = "table",
) -> None:
    """Look at this machine, the data folder on it and the server; say what is wrong and what to do.

    Each line is OK, WARN (it works, and will not for ever), FAIL, or SKIP with the reason. Nothing is
    changed. The exit status is 1 where something fails, and 0 otherwise.

    Examples:

      fleetwright doctor --data-dir /var/lib/fleetwright

      fleetwright doctor --context production -o json
    """
    now, patience = datetime.now(UTC), call_timeout(timeout)
    options = Options(address, identity, context, data_dir, patience)
    failed = 0
    shown = _Shown(Output(Format(output_format), now))
    for part, name, check in _checks(options, now):
        for finding in run(name, check):
            failed += finding.level is Level.FAIL
            shown.add(part, finding)
    shown.end()
    if failed:
        raise typer.Exit(Exit.FAILED)


def _checks(options: Options, now: datetime) -> Iterator[tuple[Part, str, Check]]:
    yield "machine", "versions", machine.versions
    yield "machine", "settings", machine.misspelt
    yield "machine", "clock", partial(machine.clock, now)
    try:
        settings = Settings() if options.data_dir is None else Settings(data_dir=options.data_dir)
    except ValidationError as error:
        text = explain(error)
        yield "machine", "settings", lambda: [fail("settings", line) for line in text.splitlines()]
        return
    chosen = options.data_dir is not None or "data_dir" in settings.model_fields_set
    if chosen or _is_there(settings.data_dir):
        yield from _of_folder(settings, now)
    else:
        why = f"{settings.data_dir} is not there; --data-dir names another one, on the server's machine"
        yield "data folder", "folder", lambda: [skip("folder", why)]
    yield "server", "server", partial(_call, options, settings, now)


def _of_folder(settings: Settings, now: datetime) -> Iterator[tuple[Part, str, Check]]:
    yield "data folder", "folder", partial(folder.folder, settings)
    if not _is_there(Layout(settings.data_dir).trust):
        return
    yield "data folder", "process", partial(folder.process, settings)
    yield "data folder", "permissions", partial(folder.permissions, settings)
    yield "data folder", "certificates", partial(certificates.certificates, settings, now)
    yield "data folder", "adoption", partial(certificates.adoption, settings, now)
    yield "data folder", "ports", partial(folder.ports, settings)
    yield "data folder", "disk", partial(folder.disk, settings)
    yield "data folder", "open files", partial(folder.open_files, settings)
    yield "data folder", "database", partial(database.database, settings)
    yield "data folder", "clock", partial(database.written_before, settings, now)


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # this user may not look
        return False


def _call(options: Options, settings: Settings, now: datetime) -> Iterator[Finding]:
    try:
        target = target_of(options, ClientSettings())
    except CommandFailed as error:
        named = options.context or options.server or options.identity
        yield fail("server", str(error)) if named else skip("server", f"none is called: {error}")
        return
    except ValidationError as error:
        yield fail("server", explain(error))
        return
    except AddressError as error:
        yield fail("server", str(error))
        return
    if target.server == LOCAL_SERVER and target.identity.is_relative_to(settings.data_dir):
        if not _is_there(Layout(settings.data_dir).trust):
            yield skip("server", "not called, for the data folder cannot be used")
            return
        if preflight.holder_of(settings.data_dir) is None:
            yield skip("server", "not called, for no server runs on the data folder")
            return
        if settings.admin_port:
            target = Target(f"localhost:{settings.admin_port}", target.identity)
    yield from server.server(target, settings, now, options.timeout)


class _Shown:
    """Prints findings: each at once to people, all of them at the end to programs."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._part: Part | None = None
        self._found: list[tuple[Part, Finding]] = []

    def add(self, part: Part, finding: Finding) -> None:
        """Print a finding, or keep it."""
        self._found.append((part, finding))
        if not self._output.for_people:
            return
        if part != self._part:
            self._part = part
            self._output.lines([Text(part, "bold")])
        text = clean(f"{finding.check}: {finding.message}")
        level = Text(f"  {finding.level.value:<4}  ", _STYLES[finding.level])
        self._output.lines([level + Text(text)])

    def end(self) -> None:
        """Print how many there are of each level, or everything."""
        number = {level: sum(finding.level is level for _, finding in self._found) for level in Level}
        if self._output.for_people:
            self._output.lines([Text(", ".join(f"{count} {level.value}" for level, count in number.items()))])
            return
        checks = [
            {"part": part, "check": f.check, "level": f.level.value, "message": f.message}
            for part, f in self._found
        ]
        counts = {level.value: count for level, count in number.items()}
        self._output.text(json.dumps({"checks": checks, "counts": counts}, indent=2))
