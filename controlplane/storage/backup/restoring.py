"""Putting a backup in place of what a data folder has, or into a new one.

Everything is written and checked inside the data folder, beside what is there. Giving that
its name ``.restore`` is the one step that decides: killed before it, the folder is as it
was; killed after it, ``finish`` does the rest, called by the next restore and by the next
start of the server. What the backup replaces is set aside in a folder of its own, never deleted.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from controlplane import failpoints
from controlplane.preflight import RESTORING, FolderInUse, FolderLock, StartRefused
from controlplane.storage import migrate
from controlplane.storage.backup import archive, database, manifest
from controlplane.storage.backup.errors import BackupError, DamagedBackup, UnsoundDatabase, writing
from controlplane.storage.backup.manifest import Manifest
from controlplane.storage.backup.taking import Progress, counting, roots
from controlplane.trust.adoption import ADOPTION_FILE, Adoption, allow_adoption
from controlplane.trust.files import FILE_MODE, make_folder, move_folder, sync_folder, write_file
from controlplane.trust.layout import DATABASE, Layout

_PLAN = "plan.json"
_SPARE_BYTES = 64 * 1024 * 1024
"""Room that must be left: what a server wants to have at its start."""

# The log and its index belong to the database that they lie beside, and go with it; so does the leave
# to adopt what that database does not know.
_PARTS = {DATABASE: (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", ADOPTION_FILE)}


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore put in place; ``aside`` is where the former content is, None where there was none."""

    data_dir: Path
    manifest: Manifest
    aside: Path | None
    finished_earlier: bool
    """Whether it was an interrupted restore of the same folder that was finished first."""
    adoption: Adoption | None
    """The leave that was given with it."""


def restore(
    data_dir: Path,
    source: Path,
    *,
    now: datetime,
    force: bool = False,
    adopt_for: timedelta | None = None,
    progress: Progress = lambda _what, _done, _total: None,
) -> Restored:
    """Put the backup ``source`` into ``data_dir``. ``force`` sets aside what is there.

    ``adopt_for`` gives leave for so long to adopt certificates that were issued since the backup.
    Raises ``BackupError``; the folder is as it was then.
    """
    described = describe(source)
    with writing(data_dir), _held(data_dir):
        finished_earlier = finish(data_dir)
        layout = Layout(data_dir)
        replaced = _replaced(layout, described)
        if replaced and not force:
            raise BackupError(
                f"data folder {data_dir}: has {', '.join(replaced)} already; choose another folder, or set "
                "what is there aside with --force"
            )
        _check_keys(layout, described, source)
        _check_room(data_dir, described)
        fresh = data_dir / f"{RESTORING}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            _extract(source, described, fresh, progress)
            aside = _unused(data_dir, f"replaced-{now:%Y%m%dT%H%M%SZ}")
            items, adoption = _items(described), None
            if adopt_for is not None:
                adoption = allow_adoption(fresh, described.time, now, adopt_for)
                items.append(ADOPTION_FILE)  # last: a former one goes aside with its database
            write_file(fresh / _PLAN, json.dumps({"aside": aside, "items": items}).encode())
            failpoints.hit("restore.before_commit")
            move_folder(fresh, data_dir / RESTORING)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        failpoints.hit("restore.after_commit")
        finish(data_dir)
    return Restored(data_dir, described, data_dir / aside if replaced else None, finished_earlier, adoption)


def describe(source: Path) -> Manifest:
    """Return the manifest of a backup that this program can put back; raises ``BackupError``."""
    try:
        with archive.reading(source) as reader:
            return _manifest_of(source, reader)
    except OSError as error:
        raise BackupError(f"{source}: {error.strerror}; name a backup that this user can read") from error


def finish(data_dir: Path) -> bool:
    """Put in place what an interrupted restore had decided to; returns whether there was one.

    For whoever holds the folder's lock. Does nothing twice. Raises ``OSError``.
    """
    chosen = data_dir / RESTORING
    if not chosen.is_dir():
        return False
    plan = chosen / _PLAN
    # Without its plan all is in place, and only the folder was not yet gone.
    if plan.exists():
        decided = json.loads(plan.read_bytes())
        for item in decided["items"]:
            if (chosen / item).exists():
                _replace(data_dir, item, data_dir / decided["aside"])
                failpoints.hit("restore.between_moves")
                move_folder(chosen / item, data_dir / item)
        plan.unlink()
        sync_folder(chosen)
    shutil.rmtree(chosen)
    sync_folder(data_dir)
    return True


def _replace(data_dir: Path, item: str, aside: Path) -> None:
    for name in _PARTS.get(item, (item,)):
        if (data_dir / name).exists():
            make_folder(aside)
            move_folder(data_dir / name, aside / name)


def _unused(data_dir: Path, name: str) -> str:
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not (data_dir / name).exists())


@contextmanager
def _held(data_dir: Path) -> Iterator[None]:
    """Hold the folder's lock; a folder that this made and that stays empty is gone after the block."""
    made = not data_dir.is_dir()
    make_folder(data_dir)
    try:
        with FolderLock(data_dir):
            yield
    except FolderInUse as error:
        raise BackupError(
            f"data folder {data_dir}: a server uses it (process {error.holder}); stop it first"
        ) from error
    except StartRefused as error:
        raise BackupError(str(error)) from error
    except BaseException:
        if made and not (data_dir / RESTORING).exists():
            shutil.rmtree(data_dir, ignore_errors=True)
        raise


def _items(described: Manifest) -> list[str]:
    """Return what is moved in, each in one step: the keys first, for a server needs them to start."""
    tops = {entry.name.partition("/")[0] for entry in described.entries}
    return [*sorted(tops - {DATABASE}, reverse=True), DATABASE]


def _replaced(layout: Layout, described: Manifest) -> list[str]:
    items = _items(described)
    return [
        item for item in items if any((layout.root / name).exists() for name in _PARTS.get(item, (item,)))
    ]


def _check_keys(layout: Layout, described: Manifest, source: Path) -> None:
    if described.has_keys or not layout.trust.exists():
        return
    if roots(layout) != described.roots:
        raise BackupError(
            f"{source}: was taken without keys, from an installation with other roots than {layout.trust} "
            "has; put the keys that belong to it there first"
        )


def _check_room(data_dir: Path, described: Manifest) -> None:
    needed, free = described.size + _SPARE_BYTES, shutil.disk_usage(data_dir).free
    if needed > free:
        raise BackupError(
            f"data folder {data_dir}: {needed // 2**20} MiB are needed and {free // 2**20} MiB are free; "
            "free some space, or choose another disk"
        )


def _manifest_of(source: Path, reader: archive.ArchiveReader) -> Manifest:
    described = manifest.read(source, reader.small(manifest.NAME, manifest.MAX_BYTES))
    known = migrate.revisions()
    if described.schema not in known:
        raise BackupError(
            f"{source}: this backup is from schema {described.schema}, this program knows up to {known[-1]}: "
            f"install the newer one (it was taken by fleetwright {described.product})"
        )
    return described


def _extract(source: Path, described: Manifest, fresh: Path, progress: Progress) -> None:
    """Write the files of a backup into the new folder ``fresh``, durably, and check them."""
    advance = counting("restoring", described.size, progress)
    with archive.reading(source) as reader:
        if _manifest_of(source, reader) != described:
            raise DamagedBackup(source, "it was replaced while it was read")
        for entry in described.entries:
            reader.expect(entry.name, entry.size, entry.size)
            path = fresh / entry.name
            make_folder(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                digest = reader.copy(entry.size, file, advance)
                file.flush()
                os.fsync(file.fileno())
            if digest != entry.digest:
                raise DamagedBackup(source, f"{entry.name} is not what was backed up (its digest differs)")
            sync_folder(path.parent)
        reader.end()
    try:
        schema = database.check(fresh / DATABASE, thoroughly=True)
    except UnsoundDatabase as error:
        raise DamagedBackup(source, f"its database {error}") from error
    if schema != described.schema:
        raise DamagedBackup(source, f"its database has schema {schema} and not {described.schema}")
    database.begin_anew(fresh / DATABASE)
