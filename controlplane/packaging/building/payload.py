"""The files that go into a package, each held against the digest that stage INTAKE recorded."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from fleetwright.manifest import PackagedFile

from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.records import FileEntry

CHUNK: Final = 2**18
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """A file of the package and where its bytes lie; a link has no bytes."""

    file: PackagedFile
    source: Path


def of_tree(tree: Path, entries: Iterable[FileEntry]) -> list[PayloadFile]:
    """Return the files of an extracted tree as a package has them: sorted, modes 0755 and 0644 alone."""
    found = [PayloadFile(_packaged(entry), tree / entry.path) for entry in entries]
    return sorted(found, key=lambda one: one.file.path)


def of_file(path: Path, name: str, size: int, sha256: str, *, executable: bool) -> list[PayloadFile]:
    """Return the one file that a binary or a jar is, under ``name``."""
    return [PayloadFile(PackagedFile(name, sha256, size, 0o755 if executable else 0o644), path)]


def _packaged(entry: FileEntry) -> PackagedFile:
    if entry.link_target:
        return PackagedFile(entry.path, EMPTY_SHA256, 0, 0o755, entry.link_target)
    return PackagedFile(entry.path, entry.sha256, entry.size, 0o755 if entry.mode & 0o111 else 0o644)


def disk_bytes(files: Sequence[PackagedFile]) -> int:
    """Return what files take on a disk: each in whole blocks of 4 KiB, and one block for its name."""
    block = 4_096
    return sum(block + -(-file.size // block) * block for file in files)


def copy(one: PayloadFile, write: Callable[[bytes], object]) -> None:
    """Hand the bytes of a file to ``write`` in pieces.

    Raises ``BuildFailed`` where they are not those of its digest any more; then what was written is
    worthless.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with _opened(one.source, one.file.path) as source:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                if size > one.file.size:
                    break
                digest.update(chunk)
                write(chunk)
    except OSError as error:
        raise BuildFailed("UNREADABLE", one.file.path, f"cannot be read: {error.strerror}") from error
    if size != one.file.size or digest.hexdigest() != one.file.sha256:
        raise BuildFailed(
            "FILE_CHANGED", one.file.path, "is not what it was at intake; start the pipeline again"
        )


def _opened(path: Path, name: str) -> BinaryIO:
    # Not blocking, so that a pipe in place of the file is seen and not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BuildFailed("FILE_CHANGED", name, "is no regular file any more; start the pipeline again")
    return os.fdopen(descriptor, "rb")
