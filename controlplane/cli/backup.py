"""``fleetwright backup`` and ``fleetwright restore``: copies of a data folder, on the server's machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from controlplane import VERSION, failpoints
from controlplane.cli.calling import calling
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Output
from controlplane.cli.server import DataDir, settings_from
from controlplane.settings import Settings
from controlplane.storage.backup import restoring, taking
from controlplane.storage.backup.errors import BackupError
from controlplane.storage.backup.manifest import Manifest
from controlplane.storage.backup.restoring import Restored
from controlplane.storage.backup.taking import Taken

app = typer.Typer(rich_markup_mode=None)


@dataclass(frozen=True)
class _Backup:
    """A backup as it is printed."""

    taken: Taken

    @property
    def name(self) -> str:
        return str(self.taken.path)

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.name, "size": self.taken.size, **_described(self.taken.manifest)}

    @property
    def note(self) -> str:
        if self.taken.manifest.has_keys:
            return "the keys are in it: keep it as secret as the data folder"
        return "no keys are in it: keep a copy of trust/ apart, without which no agent comes back"


@dataclass(frozen=True)
class _Restore:
    """A restore as it is printed."""

    restored: Restored

    @property
    def name(self) -> str:
        return str(self.restored.data_dir)

    @property
    def aside(self) -> str:
        return "" if self.restored.aside is None else str(self.restored.aside)

    @property
    def adopts_until(self) -> str:
        leave = self.restored.adoption
        return "" if leave is None else f"{leave.until:%Y-%m-%dT%H:%M:%SZ}"

    @property
    def note(self) -> str:
        if self.restored.manifest.has_keys:
            return ""
        return "this backup has no keys: the server needs trust/ of the same installation"

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataDir": self.name,
            "setAside": self.aside or None,
            "finishedEarlier": self.restored.finished_earlier,
            "adoptsUntil": self.adopts_until or None,
            **_described(self.restored.manifest),
        }


_BACKUP: list[Column[_Backup]] = [
    Column("backup", lambda one: f"{one.name} ({_size(one.taken.size)})"),
    Column("of", lambda one: _words(one.taken.manifest)),
    Column("note", lambda one: one.note),
]
_RESTORE: list[Column[_Restore]] = [
    Column("data folder", lambda one: one.name),
    Column("backup of", lambda one: _words(one.restored.manifest)),
    Column("set aside", lambda one: one.aside and f"{one.aside}; remove it when nothing in it is needed"),
    Column(
        "adopts until",
        lambda one: (
            one.adopts_until and f"{one.adopts_until}; delete and revoke again what was since the backup"
        ),
    ),
    Column("note", lambda one: one.note),
    Column("next", lambda one: f"fleetwright serve --data-dir {one.name}"),
]


@app.command("backup")
@calling
def backup(
    output: Output,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="The file to write; .gz or .tgz compresses it. Or a folder, for a new name.",
        ),
    ],
    data_dir: DataDir = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="The database alone, without trust/ and identities/.")
    ] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Leave out the database's free space; takes longer.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace TARGET where it exists.")] = False,
) -> None:
    """Copy the data folder into one file, while its server runs or not.

    The file holds the keys of the installation: whoever reads it can make any identity. Its mode is 0600;
    keep it as you keep the data folder. It appears once it is whole, on disk, and was read back.

    \b
    Examples:
      fleetwright backup /var/backups/fleetwright --data-dir /var/lib/fleetwright
      fleetwright backup monday.tar.gz --data-dir site --without-keys -o json
    """
    settings = _embedded(settings_from(data_dir=data_dir))
    with _ending_in_order(), _bars(output) as bars, _told():
        taken = taking.take(
            settings.data_dir,
            target,
            product=VERSION,
            now=datetime.now(UTC),
            keys=not without_keys,
            force=force,
            compact=compact,
            progress=bars,
        )
    output.one(_Backup(taken), _BACKUP)


@app.command("restore")
@calling
def restore(
    output: Output,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A backup that `fleetwright backup` took.")],
    data_dir: DataDir = None,
    force: Annotated[
        bool, typer.Option("--force", help="Set aside what the data folder has; it is never deleted.")
    ] = False,
    adopt_certificates: Annotated[
        bool,
        typer.Option(
            "--adopt-certificates",
            help="Let agents that renewed since the backup come back, for one life of their certificates.",
        ),
    ] = False,
) -> None:
    """Put a backup into a data folder that no server uses.

    All is checked before anything is replaced. A restore that is killed has changed nothing, or is finished
    by the next restore or the next start of the server.

    What was deleted or revoked since the backup is there again. With --adopt-certificates so are agents that
    got a certificate since: those of agents that were deleted, and stolen ones, too.

    \b
    Examples:
      fleetwright restore monday.tar.gz --data-dir site
      fleetwright restore monday.tar.gz --data-dir site --force
    """
    settings = _embedded(settings_from(data_dir=data_dir))
    try:
        failpoints.arm(settings.failpoints)
    except ValueError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    with _ending_in_order(), _bars(output) as bars, _told():
        restored = restoring.restore(
            settings.data_dir,
            source,
            now=datetime.now(UTC),
            force=force,
            adopt_for=settings.agent_certificate_life if adopt_certificates else None,
            progress=bars,
        )
    output.one(_Restore(restored), _RESTORE)


def _embedded(settings: Settings) -> Settings:
    """Return the settings of a site whose database is in its data folder; others have tools of their own."""
    if settings.database_url.get_secret_value():
        raise CommandFailed(
            "FLEETWRIGHT_DATABASE_URL: this site's database is PostgreSQL: back it up and restore it with "
            "pg_dump and pg_restore, or with the server's own archiving, and keep a copy of trust/ and "
            f"identities/ of {settings.data_dir} beside it",
            Exit.USAGE,
        )
    return settings


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BackupError as error:
        raise CommandFailed(str(error)) from error


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, so that nothing half written stays."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def _bars(output: Output) -> Iterator[taking.Progress]:
    """Show on a terminal how far each part of the work is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=output.errors, disable=not output.errors.is_terminal) as bars:

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "product": manifest.product,
        "schema": manifest.schema,
        "time": manifest.time.isoformat(),
        "keys": manifest.has_keys,
        "files": [{"name": one.name, "size": one.size, "sha256": one.digest} for one in manifest.entries],
    }


def _words(manifest: Manifest) -> str:
    when = f"{manifest.time:%Y-%m-%d %H:%M:%SZ}"
    return (
        f"{when}, schema {manifest.schema}, fleetwright {manifest.product}, {_size(manifest.size)} of files"
    )


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"
