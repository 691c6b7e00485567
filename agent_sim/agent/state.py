"""The state folder: the identity, the journal, the policy, and the lock that keeps a second agent out."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent_sim.agent.policy import POLICY_FILE
from agent_sim.protocol.trusted_root import TRUSTED_ROOT, write_root

ROOT_STATE = Path("/var/lib/fleetwright-agent")
_USER_STATE = Path(".local/state/fleetwright-agent")
_LOCK_FILE = "agent.lock"
_LOCK_BYTES = 32
_PROBE_FILE = ".writable"


class StateError(Exception):
    """The state folder cannot be used; the text names it and the remedy."""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Where an agent keeps what it must not lose; mode 0700, one agent each."""

    path: Path

    @property
    def journal(self) -> Path:
        """The journal's database."""
        return self.path / "journal.sqlite3"

    @property
    def policy(self) -> Path:
        """The policy file, unless another one is named."""
        return self.path / POLICY_FILE

    @property
    def packages(self) -> Path:
        """What is known of the packages that were installed."""
        return self.path / "packages"

    @property
    def trusted_root(self) -> Path:
        """The root that packages are judged by, unless the policy names another one."""
        return self.path / TRUSTED_ROOT

    @property
    def running(self) -> Path:
        """What the running agent says of itself; news, not a record."""
        return self.path / "running.json"

    def make(self) -> None:
        """Make the folder, or close an existing one of ours to others. Raises ``StateError``."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner(self.path.stat())
            self.path.chmod(0o700)
        except OSError as error:
            raise StateError(f"{self.path}: {_remedy(error)}") from error
        self.check_writable()

    def check(self) -> None:
        """Raise ``StateError`` unless the folder is there, ours, and closed to others."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise StateError(f"{self.path}: {_remedy(error)}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise StateError(f"{self.path}: not a folder; name the agent's state folder with --state")
        self._check_owner(status)
        if status.st_mode & 0o077:
            raise StateError(
                f"{self.path}: mode {stat.S_IMODE(status.st_mode):04o} opens the agent's private key to "
                f"others; run `chmod 700 {self.path}`"
            )

    def check_writable(self, *, with_room: bool = True) -> None:
        """Write a page and take it away again.

        Raises ``StateError`` for a read-only disk, and for a full one unless ``with_room`` is
        False: an agent that has its journal lives on with what that has reserved.
        """
        probe = self.path / _PROBE_FILE
        try:
            with probe.open("wb") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
            probe.unlink()
        except OSError as error:
            if not with_room and error.errno in (errno.ENOSPC, errno.EDQUOT):
                with suppress(OSError):
                    probe.unlink()
                return
            raise StateError(f"{self.path}: {_remedy(error)}") from error

    def keep_root(self, content: bytes, *, replace: bool) -> bool:
        """Keep the root that came with the identity; returns whether it was written.

        One that is there stays unless ``replace``, and nothing takes the place of nothing. Raises
        ``StateError``.
        """
        if not content or (self.trusted_root.exists() and not replace):
            return False
        try:
            write_root(self.path, content)
        except OSError as error:
            raise StateError(f"{self.trusted_root}: {_remedy(error)}") from error
        return True

    def _check_owner(self, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid():
            raise StateError(
                f"{self.path}: belongs to uid {status.st_uid}, and this is uid {os.geteuid()}; "
                "run as its owner, or name another folder with --state"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the kernel lets go of it however the process ends.

        Raises ``StateError`` naming the process that holds it already.
        """
        try:
            handle = self._lock()
        except OSError as error:
            raise StateError(f"{self.path}: {_remedy(error)}") from error
        try:
            yield
        finally:
            os.close(handle)

    def _lock(self) -> int:
        handle = os.open(self.path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Over what is there and never shorter: on a full disk the block that it has is all that it gets.
            os.pwrite(handle, f"{os.getpid()}\n".encode().ljust(_LOCK_BYTES), 0)
        except BlockingIOError:
            holder = _pid_in(handle)
            os.close(handle)
            raise StateError(
                f"{self.path}: used by another fleetwright-agent, process {holder}; "
                "stop that one first, or give this one a folder of its own with --state"
            ) from None
        except OSError:
            os.close(handle)
            raise
        return handle

    def holder(self) -> str | None:
        """Return the process id of the agent that runs on this folder, or None."""
        try:
            handle = os.open(self.path / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(handle)
        else:
            return None
        finally:
            os.close(handle)


def default_state() -> Path:
    """Return the state folder of the user that this process runs as."""
    return ROOT_STATE if os.geteuid() == 0 else Path.home() / _USER_STATE


def _pid_in(handle: int) -> str:
    return os.pread(handle, _LOCK_BYTES, 0).decode("ascii", "replace").strip() or "unknown"


def _remedy(error: OSError) -> str:
    what = error.strerror or type(error).__name__
    return f"{what}; {_REMEDIES.get(error.errno or 0, 'name another folder with --state')}"


_REMEDIES = {
    errno.ENOENT: "enrol first with `fleetwright-agent enroll`, or name the folder with --state",
    errno.ENOSPC: "the disk is full; free space on it, or name a folder elsewhere with --state",
    errno.EDQUOT: "the quota is used up; free space, or name a folder elsewhere with --state",
    errno.EROFS: "the file system is read-only; remount it, or name a folder elsewhere with --state",
    errno.EACCES: "run as the folder's owner, or name one of your own with --state",
    errno.EPERM: "run as the folder's owner, or name one of your own with --state",
    errno.EEXIST: "a file is in the way; remove it, or name another folder with --state",
    errno.ENOTDIR: "a file is in the way; remove it, or name another folder with --state",
}
