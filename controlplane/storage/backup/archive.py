"""The file itself: a tar that any tar can list, of plain files, compressed with gzip if wanted.

Read and written here by blocks, with the standard library for the headers alone: its own
reader follows links and extended headers of any size, and neither has a place in a backup.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from controlplane.storage.backup.errors import DamagedBackup

CHUNK = 1024 * 1024
_BLOCK = tarfile.BLOCKSIZE
_GZIP_MAGIC = b"\x1f\x8b"
# Most of what a larger number gains costs more time than reading a disk does.
_GZIP_LEVEL = 4

Advance = Callable[[int], None]
"""Told how many bytes more are done."""


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take ``data``."""


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def compresses(path: Path) -> bool:
    """Return whether a backup of this name is compressed."""
    return path.suffix in (".gz", ".tgz")


class ArchiveWriter:
    """Writes members one after the other; ``close`` makes it whole."""

    def __init__(self, file: BinaryIO, time: int, *, compress: bool) -> None:
        self._time = time
        self._file = (
            cast("BinaryIO", gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=time)) if compress else file
        )

    def add(self, name: str, size: int, source: BinaryIO, advance: Advance) -> None:
        """Write one file of ``size`` bytes, which ``source`` must have."""
        header = tarfile.TarInfo(name)
        header.size, header.mode, header.mtime = size, 0o600, self._time
        self._file.write(header.tobuf(tarfile.GNU_FORMAT))
        left = size
        while left:
            data = source.read(min(CHUNK, left))
            if not data:
                raise OSError(f"{name}: became shorter while it was read")
            self._file.write(data)
            left -= len(data)
            advance(len(data))
        self._file.write(_padding(size))

    def close(self) -> None:
        """Write the end; the file below stays open."""
        self._file.write(bytes(2 * _BLOCK))
        if isinstance(self._file, gzip.GzipFile):
            self._file.close()


class ArchiveReader:
    """Reads members in their order. Raises ``DamagedBackup`` for whatever is no plain file of a backup."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def expect(self, name: str, size: int | None, most: int) -> int:
        """Read the header of the next member, which must be the file ``name``; returns its size.

        ``size`` None means any up to ``most``.
        """
        try:
            header = tarfile.TarInfo.frombuf(self._read(_BLOCK), "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeError) as error:
            raise DamagedBackup(self._path, f"{name} is wanted next, and there is {error}") from error
        if header.type != tarfile.REGTYPE or header.name != name:
            raise DamagedBackup(self._path, f"{name} is wanted next, and there is {header.name[:80]!r}")
        if header.size < 0 or header.size > most or (size is not None and header.size != size):
            raise DamagedBackup(self._path, f"{name} has {header.size} bytes and not what was announced")
        return header.size

    def copy(self, size: int, sink: Sink, advance: Advance) -> str:
        """Copy the ``size`` bytes of the member to ``sink``; returns their SHA-256 in hexadecimal."""
        digest = hashlib.sha256()
        left = size
        while left:
            data = self._read(min(CHUNK, left))
            digest.update(data)
            sink.write(data)
            left -= len(data)
            advance(len(data))
        self._read(len(_padding(size)))
        return digest.hexdigest()

    def small(self, name: str, most: int) -> bytes:
        """Return what the next member has, which must be the file ``name`` of at most ``most`` bytes."""
        content = io.BytesIO()
        self.copy(self.expect(name, None, most), content, lambda _size: None)
        return content.getvalue()

    def end(self) -> None:
        """Read the end; what comes after it is no backup."""
        if any(self._read(2 * _BLOCK)) or self._file.read(1):
            raise DamagedBackup(self._path, "there is more in it than it announced")

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise DamagedBackup(self._path, "it ends too early")
        return data


@contextmanager
def reading(path: Path) -> Iterator[ArchiveReader]:
    """Open a backup, compressed or not. Raises ``DamagedBackup`` and ``OSError``."""
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        try:
            if not compressed:
                yield ArchiveReader(path, file)
                return
            with gzip.GzipFile(fileobj=file) as plain:
                yield ArchiveReader(path, cast("BinaryIO", plain))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedBackup(path, f"it cannot be decompressed ({error})") from error
