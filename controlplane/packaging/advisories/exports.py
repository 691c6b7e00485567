"""OSV exports on disk: which files are of which ecosystem, and the records in them, read with limits.

The layout is that of OSV's bulk export: ``<ecosystem>/all.zip`` with one JSON record a member, the zip alone,
or the same unpacked, a folder of ``*.json``. Nothing is extracted; members are read into memory one at a
time.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from controlplane.packaging.advisories.osv import MAX_RECORD
from controlplane.packaging.advisories.versions import is_known

MAX_MEMBERS = 1_000_000
"""Records of one export; the largest, of npm, has a fifth of it."""

MAX_TOTAL = 16 * 1024 * 1024 * 1024
"""Bytes of all records of an export: what one process may read before it gives up."""

MAX_ARCHIVE = 4 * 1024 * 1024 * 1024
"""Bytes of a zip."""

_SUFFIX = ".json"
_ARCHIVE = "all.zip"


class ExportError(ValueError):
    """A file or folder is no export; the message names the member, what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Export:
    """The records of one ecosystem: a zip, or a folder."""

    ecosystem: str
    """Without a release."""
    path: Path

    @property
    def is_zip(self) -> bool:
        """Whether it is one file."""
        return not self.path.is_dir()


def find(path: Path, ecosystem: str = "") -> list[Export]:
    """Return the exports below a path, by ecosystem.

    A zip and a folder of records are of ``ecosystem``, or of the one that their own folder is named after. A
    folder of folders has one export in each that is named after an ecosystem. Raises ``ExportError``.
    """
    try:
        return _find(path, ecosystem)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None


def _find(path: Path, ecosystem: str) -> list[Export]:
    if not path.exists():
        raise ExportError(f"{path}: is not there; give a zip or a folder of OSV records")
    if not path.is_dir():
        return [Export(ecosystem or _named(path.resolve().parent, path), path)]
    archive = path / _ARCHIVE
    if archive.exists():
        return [Export(ecosystem or _named(path.resolve(), archive), archive)]
    if any(name.endswith(_SUFFIX) for name in os.listdir(path)):
        return [Export(ecosystem or _named(path.resolve(), path), path)]
    below = sorted(name for name in os.listdir(path) if is_known(name) and (path / name).is_dir())
    chosen = [name for name in below if not ecosystem or name == ecosystem]
    found = [export for name in chosen for export in _find_one(path / name, name)]
    if not found:
        raise ExportError(
            f"{path}: has neither {_ARCHIVE}, nor *{_SUFFIX}, nor folders with these that are named after "
            f"ecosystems{f' ({ecosystem})' if ecosystem else ''}"
        )
    return found


def _find_one(folder: Path, ecosystem: str) -> list[Export]:
    if (folder / _ARCHIVE).exists():
        return [Export(ecosystem, folder / _ARCHIVE)]
    has_records = any(name.endswith(_SUFFIX) for name in os.listdir(folder))
    return [Export(ecosystem, folder)] if has_records else []


def _named(folder: Path, path: Path) -> str:
    if not is_known(folder.name):
        raise ExportError(
            f"{path}: say which ecosystem it is of; its folder {folder.name!r} is named after none"
        )
    return folder.name


def members(export: Export) -> list[str]:
    """Return the names of the records of an export, sorted. Raises ``ExportError``."""
    try:
        if export.is_zip:
            with _open(export.path) as archive:
                names = [one.filename for one in archive.infolist()]
        else:
            names = os.listdir(export.path)
    except OSError as error:
        raise ExportError(f"{export.path}: cannot be read: {error.strerror}") from None
    names = sorted(name for name in names if name.endswith(_SUFFIX))
    if len(names) > MAX_MEMBERS:
        raise ExportError(f"{export.path}: has {len(names)} records; {MAX_MEMBERS} are allowed")
    twice = next((name for name, following in pairwise(names) if name == following), None)
    if twice is not None:
        raise ExportError(f"{export.path}: {twice} is there twice; get the export anew")
    return names


def read(export: Export, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the named records' bytes. Raises ``ExportError``, which names the member."""
    total = 0
    with _open(export.path) if export.is_zip else _Folder(export.path) as source:
        for name in names:
            try:
                content = source.read_member(name)
            except ExportError:
                raise
            except (OSError, RuntimeError, NotImplementedError, EOFError, KeyError, ValueError) as error:
                raise ExportError(
                    f"{export.path}: {name}: cannot be read: {error}; get the export anew"
                ) from None
            except (zipfile.BadZipFile, zlib.error) as error:
                raise ExportError(
                    f"{export.path}: {name}: is damaged: {error}; get the export anew"
                ) from None
            total += len(content)
            if total > MAX_TOTAL:
                raise ExportError(f"{export.path}: has more than {MAX_TOTAL} bytes of records")
            yield name, content


class _Zip(zipfile.ZipFile):
    def read_member(self, name: str) -> bytes:
        info = self.getinfo(name)
        if info.file_size > MAX_RECORD:
            raise ExportError(
                f"{self.filename}: {name}: has {info.file_size} bytes; {MAX_RECORD} are allowed"
            )
        # What the directory declares is not what comes: no more is unpacked than may be.
        with self.open(info) as member:
            content = member.read(MAX_RECORD + 1)
        return _bounded(content, f"{self.filename}: {name}")


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_member(self, name: str) -> bytes:
        # Never through a link: the folder is the export, and nothing else of this machine.
        handle = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ExportError(f"{self._path}: {name}: is no regular file; take it out of the export")
            with open(handle, "rb", closefd=False) as file:
                return _bounded(file.read(MAX_RECORD + 1), f"{self._path}: {name}")
        finally:
            os.close(handle)


def _bounded(content: bytes, what: str) -> bytes:
    if len(content) > MAX_RECORD:
        raise ExportError(f"{what}: has more than {MAX_RECORD} bytes")
    return content


def _open(path: Path) -> _Zip:
    try:
        size = path.stat().st_size
        if size > MAX_ARCHIVE:
            raise ExportError(f"{path}: has {size} bytes; {MAX_ARCHIVE} are allowed")
        return _Zip(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{path}: is no zip that can be read: {error}; get the export anew") from None
