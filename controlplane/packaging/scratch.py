"""A folder of this process's own for what is on its way; what a killed one left is removed.

The folder is locked as long as its process lives, as isolation's are: what is not locked was left behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "process-"


class Scratch:
    """A folder below ``root``, which is on a disk of this machine's own; ``root`` is made where missing."""

    def __init__(self, root: Path) -> None:
        # Jobs of isolation have their folders beside it, and go through this one.
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._root = root
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        self._lock = _locked(self.path)

    def sweep(self) -> int:
        """Remove what processes left that were killed; returns how many folders."""
        removed = 0
        for path in sorted(self._root.glob(f"{_PREFIX}*")):
            with suppress(OSError):
                removed += _remove_left(path)
        return removed

    def remove(self) -> None:
        """Remove the folder with all that is in it; again is the same."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_left(path: Path) -> bool:
    if path.lstat().st_uid != os.geteuid():
        return False
    try:
        lock = _locked(path)
    except BlockingIOError:
        return False
    try:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
