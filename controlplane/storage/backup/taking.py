"""Taking a backup. The server may run, and goes on."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controlplane.storage.backup import archive, database, manifest
from controlplane.storage.backup.errors import BackupError, UnsoundDatabase, writing
from controlplane.storage.backup.manifest import Entry, Manifest
from controlplane.trust.files import FILE_MODE, FOLDER_MODE, sync_folder, write_file
from controlplane.trust.layout import AGENTS_ROOT, DATABASE, OPERATORS_ROOT, Layout

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many bytes of how many."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that is whole and was read back; ``size`` is the file's, in bytes."""

    path: Path
    size: int
    manifest: Manifest


def take(
    data_dir: Path,
    target: Path,
    *,
    product: str,
    now: datetime,
    keys: bool = True,
    force: bool = False,
    compact: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> Taken:
    """Write a backup of ``data_dir`` to ``target``, or under a name of its own into that folder.

    It appears under its name once it is whole and was read back. ``keys`` False leaves out
    ``trust`` and ``identities``, ``compact`` the free space of the database. Raises ``BackupError``,
    and leaves nothing behind then.
    """
    layout = Layout(data_dir)
    path = _path(layout, target, now, force=force)
    with writing(path.parent), _workshop(path) as workshop:
        copy = workshop / DATABASE
        database.copy(
            layout.database, copy, lambda done, total: progress("copying", done, total), compact=compact
        )
        schema = _schema(layout, copy)
        files = {DATABASE: copy, **(_private_files(layout, workshop) if keys else {})}
        entries = tuple(_entry(name, source) for name, source in files.items())
        described = Manifest(product, schema, now, roots(layout), entries)
        fresh = workshop / "archive"
        _write(fresh, described, files, compress=archive.compresses(path), progress=progress)
        _read_back(fresh, described, progress)
        if path.exists() and not force:
            raise _exists(path)
        fresh.replace(path)
        sync_folder(path.parent)
    return Taken(path, path.stat().st_size, described)


def _path(layout: Layout, target: Path, now: datetime, *, force: bool) -> Path:
    if not layout.database.is_file():
        raise BackupError(
            f"data folder {layout.root}: there is no {DATABASE} in it; name the right one with --data-dir, "
            "or start the server once"
        )
    path = target / f"fleetwright-{now:%Y%m%dT%H%M%SZ}.tar" if target.is_dir() else target
    if not path.parent.is_dir():
        raise BackupError(f"{path.parent}: there is no such folder; make it, or choose another")
    if path.exists() and not force:
        raise _exists(path)
    return path


def _exists(path: Path) -> BackupError:
    return BackupError(f"{path}: exists already; choose another name, or replace it with --force")


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """Make a private folder beside ``path`` for one backup at a time; it is gone after the block."""
    folder = path.with_name(f".{path.name}.part")
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"{path}: another backup is being written there; wait for its end") from None
        # What a killed run left is in nobody's use: the lock says so.
        for left in folder.iterdir():
            left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _private_files(layout: Layout, workshop: Path) -> dict[str, Path]:
    """Copy what ``trust`` and ``identities`` hold, and return the copies by their name in a backup.

    A running server may put newer ones in place meanwhile: what is described is what is written.
    """
    copies = {}
    for path in sorted([*layout.trust.glob("*"), *layout.identities.glob("*/*")]):
        name = path.relative_to(layout.root).as_posix()
        if path.is_file() and manifest.is_name(name):
            copies[name] = workshop / name.replace("/", "_")
            write_file(copies[name], path.read_bytes())
    return copies


def _schema(layout: Layout, copy: Path) -> str:
    try:
        return database.check(copy, thoroughly=False)
    except UnsoundDatabase as error:
        raise BackupError(
            f"{layout.database}: {error}: check the disk, and put back the last good backup"
        ) from error


def roots(layout: Layout) -> dict[str, str]:
    """Return the SHA-256 of the certificates of a folder's roots, by name."""
    paths = {name: layout.trust / f"{name}.pem" for name in (AGENTS_ROOT, OPERATORS_ROOT)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def _entry(name: str, path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(name, file.tell(), digest)


def _write(
    path: Path, described: Manifest, files: dict[str, Path], *, compress: bool, progress: Progress
) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    advance = counting("writing", described.size, progress)
    with os.fdopen(descriptor, "wb") as file:
        writer = archive.ArchiveWriter(file, int(described.time.timestamp()), compress=compress)
        text = described.write()
        writer.add(manifest.NAME, len(text), io.BytesIO(text), lambda _size: None)
        for entry in described.entries:
            with files[entry.name].open("rb") as source:
                writer.add(entry.name, entry.size, source, advance)
        writer.close()
        file.flush()
        os.fsync(file.fileno())


def _read_back(path: Path, described: Manifest, progress: Progress) -> None:
    """Read the whole of what was written. Raises ``BackupError`` where the disk gives back something else."""
    advance = counting("verifying", described.size, progress)
    with archive.reading(path) as reader:
        same = manifest.read(path, reader.small(manifest.NAME, manifest.MAX_BYTES)) == described
        for entry in described.entries:
            reader.expect(entry.name, entry.size, entry.size)
            same = reader.copy(entry.size, _Nowhere(), advance) == entry.digest and same
        reader.end()
    if not same:
        raise BackupError(f"{path.parent}: what was written there reads differently; check the disk")


class _Nowhere:
    def write(self, data: bytes, /) -> None:
        """Drop ``data``."""


def counting(what: str, total: int, progress: Progress) -> archive.Advance:
    """Return what adds up bytes and tells ``progress``."""
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(what, done, total)

    return advance
