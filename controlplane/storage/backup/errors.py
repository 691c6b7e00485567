"""What goes wrong with backups, in words for who has to mend it."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BackupError(Exception):
    """A backup cannot be taken or put back; the text says why and what to do. Nothing was changed."""


class DamagedBackup(BackupError):
    """A file is no whole backup."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: damaged, or no backup of Fleetwright: {what}. Nothing was changed; choose another"
        )


class UnsoundDatabase(Exception):
    """A copy of a database is damaged, or none of ours; the text says how."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while ``folder`` is written into a ``BackupError``."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(folder, error) from error
    except sqlite3.Error as error:
        if "full" in str(error):
            raise _full(folder) from error
        raise BackupError(f"{folder}: the database cannot be copied: {error}; check the disk") from error


def _cannot_write(folder: Path, error: OSError) -> BackupError:
    if error.errno in _FULL:
        return _full(folder)
    path = error.filename or folder
    return BackupError(f"{path}: {error.strerror}; choose a place that this user can read and write")


def _full(folder: Path) -> BackupError:
    return BackupError(
        f"{folder}: the disk is full; nothing is left of what was written: free some space, or choose "
        "another disk"
    )
