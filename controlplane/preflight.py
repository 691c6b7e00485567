"""What must be true of the machine before the server starts, each checked by doing it.

Every refusal says what is wrong, with the path or the number, and what to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from pathlib import Path
from types import TracebackType
from typing import Self

MIN_FREE_BYTES = 64 * 1024 * 1024
"""Room for the database's log to grow between two checkpoints, with as much again to spare."""

RESERVED_FILES = 1024
"""Files beside one connection for each agent: what the listeners allow of other connections
(``transport.listeners``: 896), and 128 for the database and the runtime."""

LOCK_NAME = "server.lock"

RESTORING = ".restore"
"""The folder of a restore that is decided and not yet all in place."""

_PROBE_NAME = ".preflight.{}"  # of each process its own: several that share a folder may start at once
# What `fleetwright init` makes last: a folder without it was never finished.
_INITIALISED = "trust"
_DATABASE = "fleetwright.db"


class StartRefused(Exception):
    """The server does not start; the text says why and what to do."""


class FolderInUse(StartRefused):
    """Another process uses the data folder: ``holder``, by its id, as far as it is known."""

    def __init__(self, data_dir: Path, holder: str) -> None:
        super().__init__(
            f"data folder {data_dir}: another server uses it (process {holder});"
            " stop that one, or give this one a data folder of its own"
        )
        self.holder = holder


def check_folder(data_dir: Path) -> None:
    """Check that the data folder exists, was made by ``fleetwright init``, and can be written."""
    if not data_dir.is_dir():
        raise StartRefused(
            f"data folder {data_dir}: there is none; make it with `fleetwright init`,"
            " or set FLEETWRIGHT_DATA_DIR to the right one"
        )
    if not any((data_dir / name).is_dir() for name in (_INITIALISED, RESTORING)):
        if (data_dir / _DATABASE).exists():  # new keys would shut out every agent that it knows
            raise StartRefused(
                f"data folder {data_dir}: it has {_DATABASE} and no {_INITIALISED}/, as after a restore of a"
                f" backup without keys: put the {_INITIALISED}/ of the same installation there"
            )
        raise StartRefused(
            f"data folder {data_dir}: it has no {_INITIALISED}/, so it was never initialised;"
            " run `fleetwright init`"
        )
    probe = data_dir / _PROBE_NAME.format(os.getpid())
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _unwritable(data_dir, error) from error


def check_disk(data_dir: Path, needed: int = MIN_FREE_BYTES) -> None:
    """Check that ``needed`` bytes can be had, by taking them and giving them back.

    Figures of free space leave out quotas and reserved blocks; taking does not.
    """
    probe = data_dir / _PROBE_NAME.format(os.getpid())
    try:
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, needed)
    except OSError as error:
        raise _unwritable(data_dir, error, needed) from error
    finally:
        probe.unlink(missing_ok=True)


def _unwritable(data_dir: Path, error: OSError, needed: int = 0) -> StartRefused:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StartRefused(
            f"data folder {data_dir}: the disk is full ({needed // 1024 // 1024} MiB are needed to start);"
            " free some space, or move the folder to a larger disk"
        )
    if error.errno == errno.EROFS:
        return StartRefused(
            f"data folder {data_dir}: its file system is mounted read-only; mount it read-write"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StartRefused(
            f"data folder {data_dir}: user {os.geteuid()} may not write it;"
            " change its owner or mode, or start as the user that made it"
        )
    return StartRefused(f"data folder {data_dir}: cannot be written: {error.strerror}; check the disk")


class FolderLock:
    """The right to be the one server of a data folder; given up by ``release`` or by the process's end.

    With ``shared``, the right to be one of several, whose database is elsewhere: they keep
    out who would replace what is in the folder. An advisory lock (flock), so that a crash
    leaves nothing to clean up; the file holds the pid of the last who took it.
    """

    def __init__(self, data_dir: Path, *, shared: bool = False) -> None:
        path = data_dir / LOCK_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(data_dir, error) from error
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            holder = _written_by(self._descriptor)
            os.close(self._descriptor)
            raise FolderInUse(data_dir, holder) from error
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another server have the folder."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()


def holder_of(data_dir: Path) -> str | None:
    """Return the process id, as it wrote it, of who has the lock of a data folder; None where no one has."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Exclusive, so that one who shares it is found too; it is given back at once.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_by(descriptor)
    finally:
        os.close(descriptor)
    return None


def _written_by(descriptor: int) -> str:
    return os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"


def raise_open_files(max_agents: int) -> int:
    """Raise the soft limit of open files to the hard one and return it.

    Raises ``StartRefused`` as ``check_open_files``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    check_open_files(hard, max_agents)
    return hard


def check_open_files(hard: int, max_agents: int) -> None:
    """Check that a limit of open files is enough for ``max_agents`` connections and ``RESERVED_FILES``.

    Raises ``StartRefused`` where it is not.
    """
    needed = max_agents + RESERVED_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        fit = max(0, hard - RESERVED_FILES)
        raise StartRefused(
            f"open files: {needed} are needed for {max_agents} agents and the limit is {hard},"
            f" which fits {fit} agents; raise it (`ulimit -Hn {needed}`, or LimitNOFILE={needed} in the"
            " service's unit)" + (f", or set FLEETWRIGHT_MAX_AGENTS to {fit} or less" if fit else "")
        )


def check_split(asked: str, *, alone: bool) -> None:
    """Check that several processes are not ``asked`` for, in words, where the database takes one ``alone``.

    Raises ``StartRefused`` where they are.
    """
    if alone and asked:
        raise StartRefused(
            f"{asked}: on SQLite one process does everything, for no other one may use its database;"
            " set FLEETWRIGHT_DATABASE_URL to a PostgreSQL database, or leave out --gateways and --role"
        )


def check(data_dir: Path, max_agents: int, *, shared: bool = False) -> FolderLock:
    """Make all checks and return the lock of the data folder; raises ``StartRefused``.

    The lock is taken before the disk is tried: two servers that start at once get a clear answer.
    """
    check_folder(data_dir)
    lock = FolderLock(data_dir, shared=shared)
    try:
        check_disk(data_dir)
        raise_open_files(max_agents)
    except BaseException:
        lock.release()
        raise
    return lock
