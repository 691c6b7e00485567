"""A run of bytes of an open file, read by offset: readers share no position and cannot read past the end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controlplane.packaging.archives.errors import BadArtefact, Code

CHUNK = 256 * 1024
"""Bytes of one read: large enough that system calls cost nothing beside hashing."""


@dataclass(frozen=True, slots=True)
class Window:
    """Bytes ``start`` to ``start + size`` of an open file; ``name`` is what messages call them."""

    descriptor: int
    start: int
    size: int
    name: str

    def read(self, offset: int, count: int, what: str) -> bytes:
        """Exactly ``count`` bytes at ``offset``.

        ``TRUNCATED``, naming ``what`` was wanted, where there are less.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise BadArtefact(
                Code.TRUNCATED,
                self.name,
                f"{what} should be {count} bytes at offset {offset}, and the file has {self.size} bytes; "
                "upload it again, whole",
            )
        pieces = []
        while count:
            piece = os.pread(self.descriptor, min(count, CHUNK), self.start + offset)
            if not piece:
                message = "the file became shorter while it was read"
                raise BadArtefact(Code.CHANGED_WHILE_READ, self.name, message)
            pieces.append(piece)
            offset, count = offset + len(piece), count - len(piece)
        return b"".join(pieces)

    def head(self, count: int) -> bytes:
        """The first bytes, at most ``count``."""
        return self.read(0, min(count, self.size), "the beginning")

    def tail(self, count: int) -> bytes:
        """The last bytes, at most ``count``."""
        count = min(count, self.size)
        return self.read(self.size - count, count, "the end")

    def part(self, offset: int, size: int, name: str) -> Window:
        """A window within this one; ``TRUNCATED`` where it would reach past the end."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BadArtefact(
                Code.TRUNCATED, name, f"should end at offset {offset + size} of a file of {self.size} bytes"
            )
        return Window(self.descriptor, self.start + offset, size, name)

    def chunks(self, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` on, in order and never empty."""
        left = self.size - offset if size is None else size
        while left > 0:
            count = min(left, CHUNK)
            yield self.read(offset, count, "content")
            offset, left = offset + count, left - count


@contextmanager
def opened(path: Path, name: str, limit: int) -> Iterator[Window]:
    """The whole of a regular file; refuse links, devices, an empty file, and one that changes meanwhile.

    Raises ``NOT_A_FILE``, ``EMPTY``, ``FILE_TOO_LARGE``, ``CHANGED_WHILE_READ``; OSError where the path
    cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor)
        _check(before, name, limit)
        yield Window(descriptor, 0, before.st_size, name)
        # The kernel sets the time of change itself: a writer cannot put it back, as he can the time of
        # writing.
        after = os.fstat(descriptor)
        if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (
            before.st_size,
            before.st_mtime_ns,
            before.st_ctime_ns,
        ):
            message = "the file changed while it was read; upload it again"
            raise BadArtefact(Code.CHANGED_WHILE_READ, name, message)
    finally:
        os.close(descriptor)


def _check(status: os.stat_result, name: str, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadArtefact(Code.NOT_A_FILE, name, "is not a regular file")
    if status.st_size == 0:
        raise BadArtefact(Code.EMPTY, name, "has no bytes")
    if status.st_size > limit:
        raise BadArtefact(Code.FILE_TOO_LARGE, name, f"has {status.st_size} bytes, more than {limit}")
