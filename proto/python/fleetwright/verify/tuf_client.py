"""The client of the TUF repository, with its state on disk: which release is current, told by signed metadata
alone.

The workflow is python-tuf's (https://theupdateframework.github.io/specification/latest/, section 5). Around
it stand the limits, a lock, the clock and errors that say which attack or accident was met.

Every refresh begins at the trusted root that the caller gives, and walks up the chain of roots from there: no
file of the state folder is believed for being there. What is broken in it is removed and fetched again; then
only the memory of the versions that were seen is lost, and ``repaired`` says so.

As a program it speaks the protocol of TUF's conformance suite:

    python -m fleetwright.verify.tuf_client --metadata-dir DIR init ROOT
    python -m fleetwright.verify.tuf_client --metadata-dir DIR --metadata-url URL refresh
    python -m fleetwright.verify.tuf_client --metadata-dir DIR --metadata-url URL --target-name PATH
        --target-base-url URL --target-dir DIR download
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import TargetFile, Updater, UpdaterConfig

from fleetwright.verify import tuf_failures, tuf_state
from fleetwright.verify.errors import (
    ClockError,
    MalformedMetadata,
    StateError,
    TufError,
    UnknownTarget,
    WrongTarget,
)
from fleetwright.verify.fetching import CHUNK, Adapter, Fetcher


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is read of each kind of file, whatever the repository says. Lengths in bytes."""

    root: int = 512 * 1024
    timestamp: int = 16 * 1024
    snapshot: int = 2 * 1024 * 1024
    targets: int = 32 * 1024 * 1024
    """Of one channel; some hundred thousand packages."""
    rotations: int = 256
    """Roots between the one that is given and the current one."""
    delegations: int = 32
    within: timedelta = timedelta(minutes=30)
    """How long one file may take."""


@dataclass(frozen=True, slots=True)
class Release:
    """A target that is released: what the file at its path has to be."""

    path: str
    length: int
    hashes: Mapping[str, str]
    custom: Mapping[str, Any] = field(default_factory=dict)
    """What the publisher says of it beyond that."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file; empty where the repository names other digests only."""
        return self.hashes.get("sha256", "")

    def check_file(self, path: Path) -> None:
        """Check a file that was fetched by other means. Raises ``WrongTarget`` and ``OSError``."""
        with path.open("rb") as file:
            self.check(iter(lambda: file.read(CHUNK), b""))

    def check(self, chunks: Iterator[bytes]) -> None:
        """Check a file's chunks, of which no more is read than its length. Raises ``WrongTarget``."""
        digest, length = sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            length += len(chunk)
            if length > self.length:
                break
        self.check_digest(length, digest.hexdigest())

    def check_digest(self, length: int, digest: str) -> None:
        """Check a file by its length and its SHA-256. Raises ``WrongTarget``."""
        if length > self.length:
            raise WrongTarget(f"{self.path}: longer than the {self.length} bytes released: do not use it")
        if length != self.length:
            raise WrongTarget(
                f"{self.path}: {length} bytes, where {self.length} are released: fetch it again"
            )
        if digest != self.sha256:
            known = self.sha256 or "no SHA-256"
            raise WrongTarget(f"{self.path}: SHA-256 {digest}, where {known} is released: do not use it")


class TufClient:
    """A client of one repository.

    ``state`` is its folder, made where it is missing; one process uses it at a time. ``trusted_root`` is what
    the agent got when it enrolled. ``now`` gives the time, aware. With ``keep_clock`` a time before that of
    the last good refresh is refused, because whoever can turn a clock back makes expired metadata good again.
    With ``durable`` what was seen outlives a power cut.
    """

    def __init__(
        self,
        state: Path,
        trusted_root: bytes,
        fetcher: Fetcher,
        now: Callable[[], datetime],
        *,
        limits: Limits = Limits(),
        keep_clock: bool = True,
        durable: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._root, self._fetcher = state, trusted_root, fetcher
        self._now, self._limits, self._keep_clock, self._monotonic = now, limits, keep_clock, monotonic
        self._durable = durable
        self.repaired: tuple[str, ...] = ()
        """Files of the state that were broken at the last call, and were removed."""

    def refresh(self) -> Mapping[str, int]:
        """Follow the metadata to its newest, and return the version of each role.

        Raises a ``TufError``; then the state holds what was good until there.
        """
        with self._session() as session:
            session.updater.refresh()
            return session.versions()

    def find(self, path: str) -> Release:
        """Refresh, and return what is released under ``path``. Raises a ``TufError``."""
        with self._session() as session:
            return _release(session.find(path))

    def find_all(self, paths: Iterable[str]) -> dict[str, Release | TufError]:
        """Refresh once, and return for each path what is released, or why nothing is.

        Raises a ``TufError`` where the refresh itself fails.
        """
        with self._session() as session:
            session.updater.refresh()
            return {path: session.release_or_error(path) for path in paths}

    def download(self, path: str, destination: Path) -> Release:
        """Refresh, and fetch what is released under ``path`` to the file ``destination``, whole or not at
        all.

        A file that is there already and is the released one is kept. Raises a ``TufError``.
        """
        return self.download_all({path: destination})[path]

    def download_all(self, files: Mapping[str, Path]) -> dict[str, Release]:
        """Do what ``download`` does for several paths, with one refresh. Raises the first ``TufError``."""
        with self._session() as session:
            return {path: session.fetch(path, destination) for path, destination in files.items()}

    @contextmanager
    def _session(self) -> Iterator[_Session]:
        """One refresh: an updater can do no more, and no role is believed for what an earlier one saw."""
        now = self._now()
        with tuf_state.locked(self._state):
            self.repaired = tuf_state.mend(self._state)
            if self._keep_clock:
                _check_clock(self._state, now)
            before = tuf_state.stamps(self._state)
            with _Session.open(self._state, self._root, self._adapter(), self._limits, now) as session:
                yield session
            if self._keep_clock:
                tuf_state.write_clock(self._state, now)
            if self._durable:
                tuf_state.settle(self._state, before)

    def _adapter(self) -> Adapter:
        return Adapter(self._fetcher, self._limits.within, self._monotonic)


def _check_clock(state: Path, now: datetime) -> None:
    last = tuf_state.read_clock(state)
    if last is not None and now < last - tuf_state.CLOCK_TOLERANCE:
        raise ClockError(f"it is {now} by this machine's clock, which was at {last} before: set the clock")


@dataclass(slots=True)
class _Session:
    """One use of python-tuf's updater, whose errors are turned into ours."""

    updater: Updater
    adapter: Adapter

    @classmethod
    @contextmanager
    def open(
        cls, state: Path, root: bytes, adapter: Adapter, limits: Limits, now: datetime
    ) -> Iterator[_Session]:
        if not root:
            # An updater without a root takes the one that lies in the state folder.
            raise MalformedMetadata(
                "the trusted root is empty: give the one that the agent got when it enrolled"
            )
        session: _Session | None = None
        try:
            updater = Updater(
                str(state),
                Adapter.metadata_url,
                target_base_url=Adapter.targets_url,
                fetcher=adapter,
                config=_config(limits),
                bootstrap=root,
            )
            # The updater offers no other way to be given the time.
            updater._trusted_set.reference_time = now
            session = cls(updater, adapter)
            yield session
        except (RepositoryError, DownloadError) as error:
            raise tuf_failures.explain(error, adapter, session.updater if session else None) from error
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            # Metadata of a shape that python-tuf did not expect; nothing of it was believed.
            raise tuf_failures.malformed(adapter, error) from error
        except OSError as error:
            raise StateError(
                f"{state}: {error}: make the folder writable, or remove it to begin anew"
            ) from error

    def find(self, path: str) -> TargetFile:
        target = self.updater.get_targetinfo(path)
        if target is None:
            raise UnknownTarget(f"{path}: not released, or not any more, in this repository")
        return target

    def release_or_error(self, path: str) -> Release | TufError:
        try:
            return _release(self.find(path))
        except TufError as error:
            return error
        except (RepositoryError, DownloadError) as error:
            return tuf_failures.explain(error, self.adapter, self.updater)

    def fetch(self, path: str, destination: Path) -> Release:
        target = self.find(path)
        if self.updater.find_cached_target(target, str(destination)) is None:
            fresh = destination.with_name(f".{sha256(destination.name.encode()).hexdigest()[:16]}.new")
            try:
                self.updater.download_target(target, str(fresh))
                with fresh.open("rb") as file:
                    os.fsync(file.fileno())
                fresh.replace(destination)
            finally:
                with suppress(OSError):
                    fresh.unlink()
        return _release(target)

    def versions(self) -> dict[str, int]:
        trusted = self.updater._trusted_set
        roles = (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
        return {role.type: role.version for role in roles}


def _config(limits: Limits) -> UpdaterConfig:
    return UpdaterConfig(
        max_root_rotations=limits.rotations,
        max_delegations=limits.delegations,
        root_max_length=limits.root,
        timestamp_max_length=limits.timestamp,
        snapshot_max_length=limits.snapshot,
        targets_max_length=limits.targets,
        prefix_targets_with_hash=True,
    )


def _release(target: TargetFile) -> Release:
    custom = target.custom
    return Release(
        target.path, target.length, dict(target.hashes), custom if isinstance(custom, dict) else {}
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the client as a program and return its exit status."""
    from fleetwright.verify.tuf_command import run  # not at the top: it imports this module

    return run(arguments, lambda: datetime.now(UTC))


if __name__ == "__main__":
    sys.exit(main())
