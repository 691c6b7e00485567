"""Scratch folders: one for each job, with its inputs, gone when it is over.

``in/`` belongs to the server and can be read by the job, ``out/`` and ``tmp/`` belong to the job. A folder is
locked as long as the server that made it lives: what is not locked was left behind, and ``sweep`` removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from controlplane.packaging.isolation import trees
from controlplane.packaging.isolation.confinement.own_root import INPUTS, OUTPUTS, TEMPORARY
from controlplane.packaging.isolation.records import FailureKind, IsolationFailed, IsolationSettings

_PREFIX = "fleetwright-job-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~-]{0,199}", re.ASCII)


class Scratch:
    """A scratch folder, locked until ``remove``."""

    def __init__(self, path: Path, lock: int, settings: IsolationSettings) -> None:
        self.path = path
        self.uid = settings.uid + secrets.randbelow(settings.uids)
        """User of the job that it is for, where the server is root."""
        self._gid = settings.gid
        self._lock = lock

    @classmethod
    def make(cls, settings: IsolationSettings) -> Scratch:
        """Make an empty one. Raises ``IsolationFailed`` (NOT_STARTED)."""
        try:
            settings.scratch_root.mkdir(mode=0o711, parents=True, exist_ok=True)
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=settings.scratch_root.resolve()))
            scratch = cls(path, _locked(path), settings)
        except OSError as error:
            raise _not_started(settings.scratch_root, error) from None
        try:
            scratch._furnish()
        except OSError as error:
            scratch.remove()
            raise _not_started(path, error) from None
        return scratch

    def _furnish(self) -> None:
        for name, mode in ((INPUTS, 0o750), (OUTPUTS, 0o700), (TEMPORARY, 0o700)):
            (self.path / name).mkdir(mode=0o700)
            os.chmod(self.path / name, mode)
        if os.geteuid() == 0:
            self._hand_over()
        os.chmod(self.path, 0o710)  # noqa: S103 # the job goes through it, and reads nothing of it

    def _hand_over(self) -> None:
        """Give the job's user what is its own. Raises ``OSError``."""
        uid, gid = self.uid, self._gid
        try:
            os.chown(self.path, -1, gid)
            os.chown(self.path / INPUTS, -1, gid)
            os.chown(self.path / OUTPUTS, uid, gid)
            os.chown(self.path / TEMPORARY, uid, gid)
        except OSError as error:
            # In a user namespace, as of a container without root, there may be no such user. The job cannot
            # become it either, runs as who the server is, and says so: the fact "uid" is not held.
            if error.errno != errno.EINVAL:
                raise

    def fill(self, inputs: Mapping[str, Path]) -> None:
        """Put the inputs in place. Raises ``IsolationFailed`` (NOT_STARTED) for a missing or unfit one."""
        for name, source in inputs.items():
            if not _NAME.fullmatch(name):
                raise IsolationFailed(
                    FailureKind.NOT_STARTED,
                    f"inputs: {name!r} is no name; letters, digits and ._+~- can be used",
                )
            try:
                _place(source, self.path / INPUTS / name)
            except (OSError, shutil.Error) as error:
                reason = getattr(error, "strerror", None) or error
                raise IsolationFailed(
                    FailureKind.NOT_STARTED, f"inputs.{name}: {source} cannot be passed on: {reason}"
                ) from None

    def take(self, target: Path) -> None:
        """Move what the job left in ``out/``. Raises ``IsolationFailed`` (BAD_RESULT, NOT_STARTED)."""
        try:
            trees.take(self.path / OUTPUTS, target)
        except trees.UnfitTree as error:
            raise IsolationFailed(FailureKind.BAD_RESULT, f"out: {error}") from None
        except OSError as error:
            raise IsolationFailed(
                FailureKind.NOT_STARTED, f"outputs: {target} cannot be made: {error.strerror}"
            ) from None

    def remove(self) -> None:
        """Remove the folder and let go of its lock."""
        try:
            trees.remove(self.path)
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def _not_started(path: Path, error: OSError) -> IsolationFailed:
    return IsolationFailed(
        FailureKind.NOT_STARTED, f"scratch_root: {path} cannot be used: {error.strerror}; set another folder"
    )


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _place(source: Path, target: Path) -> None:
    found = source.stat()
    if stat.S_ISDIR(found.st_mode):
        shutil.copytree(source, target, symlinks=True, copy_function=_place_file)
        for folder, _, _ in os.walk(target):
            os.chmod(folder, 0o755)  # noqa: S103 # below ``in/``, which is closed to others
    elif stat.S_ISREG(found.st_mode):
        _place_file(str(source), str(target))
    else:
        raise OSError(0, "is neither a file nor a folder")


def _place_file(source: str, target: str) -> str:
    found = os.stat(source, follow_symlinks=False)
    # The job must not be able to change the file through its second name: root's, and nobody else's to write.
    plain = found.st_uid == 0 and found.st_mode & 0o7026 == 0 and found.st_mode & 0o004
    if os.geteuid() == 0 and plain and stat.S_ISREG(found.st_mode):
        with suppress(OSError):  # another file system
            os.link(source, target)
            return target
    shutil.copyfile(source, target)
    os.chmod(target, 0o555 if found.st_mode & 0o100 else 0o444)
    return target


def sweep(scratch_root: Path, older_than: timedelta = timedelta(minutes=1)) -> int:
    """Remove folders that a killed server left, and return how many; to be called when a server starts.

    Only folders of this user whose maker is gone and that have not changed for ``older_than``: the guard of a
    killed server may still be removing its own.
    """
    removed = 0
    oldest = time.time() - older_than.total_seconds()
    for path in sorted(scratch_root.glob(f"{_PREFIX}*")):
        with suppress(OSError):
            removed += _remove_left(path, oldest)
    return removed


def _remove_left(path: Path, oldest: float) -> bool:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mtime > oldest:
        return False
    try:
        lock = _locked(path)
    except BlockingIOError:
        return False
    try:
        trees.remove(path)
    finally:
        os.close(lock)
    return True
