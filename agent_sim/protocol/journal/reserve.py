"""Space kept for results on a disk that others fill: a file that is cut when there is no other room.

A commit needs new space even where it removes something, because the write-ahead
log grows first. So the journal holds some back. It is given up by quarters,
because whoever filled the disk may take what is let go of before the journal does.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

DEFAULT_RESERVE_BYTES = 16 << 20
"""Four of the largest results, and the log that carries them."""

_PARTS = 4
_OUT_OF_ROOM = frozenset(
    {
        sqlite3.SQLITE_FULL,
        # A quota, and a file system that was remounted read-only, say so in these words.
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
    }
)


def out_of_room(error: BaseException | None) -> bool:
    """Return whether ``error`` says that the disk takes nothing now, and may again later."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _OUT_OF_ROOM


class Reserve:
    """Holds ``size`` bytes of the disk in the file ``path``; a size of 0 holds none. Not for two threads."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        try:
            self._held = min(size, path.stat().st_size)
        except OSError:
            self._held = 0

    @property
    def share(self) -> float:
        """How much of it is held, from 0 to 1."""
        return self._held / self._size if self._size else 1.0

    def fill(self) -> bool:
        """Take as much of it as the disk gives; returns whether it is whole."""
        if self._size == 0:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            # Once more from the start: that a file is as long as this does not say that it has its blocks.
            os.ftruncate(descriptor, self._held)
            while self._held < self._size:
                wanted = min(self._size, self._held + self._part)
                os.posix_fallocate(descriptor, 0, wanted)
                self._held = wanted
            os.posix_fallocate(descriptor, 0, self._size)
        except OSError:
            os.ftruncate(descriptor, self._held)
        finally:
            os.close(descriptor)
        return self._held == self._size

    def release(self) -> bool:
        """Let a quarter go; returns False where nothing was left."""
        if self._held == 0:
            return False
        left = max(0, self._held - self._part)
        try:
            os.truncate(self._path, left)
        except OSError:
            # Gone, or as unwritable as the journal: there is nothing to gain from it.
            self._held = 0
            return False
        self._held = left
        return True

    @property
    def _part(self) -> int:
        return -(-self._size // _PARTS)
