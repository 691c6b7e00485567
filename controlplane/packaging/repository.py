"""The TUF repository of an installation: its metadata in the database, and the only way to a next version.

A publication is planned on a snapshot, in a thread, and committed in a short transaction that begins by
locking the timestamp: where another process has published meanwhile, it is planned again on what that one
made. So nobody waits for a lock while signatures are made, and no version is ever given twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from fleetwright.verify.keys import KEYS_TARGET

from controlplane import failpoints
from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.errors import DataLoss, FailedPrecondition, NotFound, Unavailable
from controlplane.packaging.blobs import BlobDamaged, BlobMissing, Blobs
from controlplane.packaging.published_versions import PublishedVersions
from controlplane.packaging.release_keys import ReleaseKeys, trust_not_set_up
from controlplane.packaging.store import metadata as stored
from controlplane.packaging.store.metadata import TargetRecord
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.trust.tuf import publishing
from controlplane.trust.tuf import state as tuf_state
from controlplane.trust.tuf.ceremony import Online
from controlplane.trust.tuf.fitting import fits, fitting
from controlplane.trust.tuf.roles import Expiries, OnlineKeys, RepositoryError
from controlplane.trust.tuf.state import RepositoryState

LARGEST_FILE = 4 * 1024 * 1024 - 64 * 1024
"""Bytes of a metadata file: a message to an agent is 4 MiB at most, and what no agent can fetch stops the
fleet. A channel of some 10,000 packages is as large."""

KEPT_FOR = timedelta(days=2)
"""How long metadata that is not current any more is kept: an agent in the middle of a refresh still asks for
it."""

_ATTEMPTS = 64
"""Each one that fails is a publication of another process that succeeded."""
_MARGIN = 1_000
"""Versions that other machines may have published beyond what this one knows of."""
_CACHED_BYTES = 32 * 1024 * 1024

_log = structlog.get_logger(__name__)

Next = Callable[[RepositoryState, OnlineKeys], RepositoryState]
"""Makes the state after a state. Called in a thread, and again where another publication came between."""
Write = Callable[[UnitOfWork, RepositoryState], Awaitable[None]]
"""Writes what belongs to a publication, in its transaction; what it raises undoes that."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A publication: the state, those of its files that are new, and the version of each role."""

    state: RepositoryState
    fresh: Mapping[str, bytes]
    versions: Mapping[str, int]


class Repository:
    """The repository. ``scratch`` is a folder on a disk of this machine's own; ``keys`` sign."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        clock: Clock,
        keys: ReleaseKeys,
        scratch: Path,
        expiries: Expiries,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self.keys = keys
        self._published = PublishedVersions(keys.folder)
        self._scratch = scratch
        self._expiries = expiries
        self._alone = asyncio.Lock()
        self._known: RepositoryState | None = None
        self._files: dict[str, bytes] = {}

    @property
    def has_keys(self) -> bool:
        """Whether this process can publish."""
        return self.keys.here

    async def file(self, file_name: str) -> bytes:
        """Return a file of the metadata as agents fetch it.

        Raises ``NotFound`` METADATA_UNKNOWN and ``FailedPrecondition`` TRUST_NOT_SET_UP.
        """
        if (content := self._files.get(file_name)) is not None:
            return content
        async with self._database.reading() as connection:
            content = await stored.find_file(connection, file_name)
        if content is None and self._known is None:
            await self.state()
            async with self._database.reading() as connection:
                content = await stored.find_file(connection, file_name)
        if content is None:
            raise NotFound("METADATA_UNKNOWN", f"file_name: the repository has no {file_name}")
        if file_name != stored.TIMESTAMP:
            self._remember(file_name, content)
        return content

    def _remember(self, file_name: str, content: bytes) -> None:
        # What has a version in its name never changes.
        self._files[file_name] = content
        while sum(map(len, self._files.values())) > _CACHED_BYTES:
            del self._files[next(iter(self._files))]

    async def state(self) -> RepositoryState:
        """Return what is current; the first time, what ``fleetwright trust init`` made.

        Raises ``FailedPrecondition`` TRUST_NOT_SET_UP, and ``Unavailable`` for metadata that is damaged.
        """
        found = await self._read()
        if found is None:
            await self._begin(await self.keys.online())
            found = await self._read()
        if found is None:
            raise Unavailable("UNAVAILABLE", "the repository's metadata is gone: put back a backup")
        return found

    async def _read(self) -> RepositoryState | None:
        async with self._database.reading() as connection:
            stamp = await stored.find_file(connection, stored.TIMESTAMP)
            if stamp is None:
                return None
            if self._known is not None and self._known.timestamp == stamp:
                return self._known
            files = {**await stored.roots(connection), stored.TIMESTAMP: stamp}
            with _damage():
                while names := tuf_state.missing(files):
                    more = await stored.find_files(connection, names)
                    if not more:
                        break
                    files |= more
        with _damage():
            self._known = await asyncio.to_thread(tuf_state.load, files)
        return self._known

    async def _begin(self, online: Online) -> None:
        """Take in what the ceremony made. Whoever is second finds what the first one took in."""
        document = online.key_document
        digest = await self.keep(document)
        target = TargetRecord(KEYS_TARGET, "", "", digest, len(document))
        now = to_micros(self._clock.now())
        async with self._database.unit_of_work() as work:
            if await stored.begin(work, online.state.files(), now):
                await stored.put_targets(work, [target], now)
                _log.info("the package repository begins", channels=list(online.state.channels))

    async def key_document(self) -> bytes:
        """Return the document of the keys that attest, as it is released. Raises as ``state``."""
        await self.state()
        async with self._database.reading() as connection:
            target = await stored.target_under(connection, KEYS_TARGET)
        if target is None:
            raise Unavailable("UNAVAILABLE", f"{KEYS_TARGET}: not released: put back a backup")
        return await self.content(target.sha256)

    async def content(self, sha256: str) -> bytes:
        """Return small bytes that are stored. Raises ``Unavailable`` where they are gone or damaged."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "content"
            try:
                await self._blobs.fetch(sha256, path)
            except (BlobMissing, BlobDamaged) as error:
                raise damaged(sha256, error) from None
            return await asyncio.to_thread(path.read_bytes)

    async def keep(self, content: bytes) -> str:
        """Store bytes under their digest, which is returned."""
        digest = hashlib.sha256(content).hexdigest()
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "content"
            await asyncio.to_thread(path.write_bytes, content)
            await self._blobs.put_file(path, digest)
        return digest

    async def change(self, make: Next, write: Write) -> RepositoryState:
        """Publish what ``make`` makes of the current state, and return it.

        Raises ``FailedPrecondition``: TRUST_NOT_SET_UP, or PACKAGE_NOT_RELEASED for what the repository does
        not take; ``Unavailable`` where others always came first; and what ``write`` raises.
        """
        online = await self.keys.online()
        async with self._alone:
            for _ in range(_ATTEMPTS):
                # Asked for first: what is read after it is not older, unless it was put back.
                published = await self._published.last()
                before = await self.state()
                _check_same(before, online)
                if not fits(fitting(online.keys, before), before):
                    # The offline roles have named other keys: they may have come since these were read.
                    online = await self.keys.online(again=True)
                keys = fitting(online.keys, before)
                made = await asyncio.to_thread(self._make, make, before, keys, published)
                if await self._commit(before, made, write):
                    return made.state
        raise Unavailable("UNAVAILABLE", "other processes publish without a pause; try again")

    def _ahead(
        self, state: RepositoryState, keys: OnlineKeys, published: Mapping[str, int]
    ) -> RepositoryState:
        """Return the state, above all versions that agents may have seen of one that it was put back for."""
        versions = state.versions
        if all(version <= versions.get(name, version) for name, version in published.items()):
            return state
        _log.warning("the repository was put back from a backup", known=versions, published=dict(published))
        above = {name: version + _MARGIN for name, version in published.items()}
        return publishing.leap(state, above, keys, self._clock.now(), self._expiries).state

    def _make(
        self, make: Next, before: RepositoryState, keys: OnlineKeys, published: Mapping[str, int]
    ) -> _Made:
        """Plan a publication. In a thread: a large channel takes most of a second."""
        with _refusals():
            after = make(self._ahead(before, keys, published), keys)
        old = before.files()
        fresh = {name: content for name, content in after.files().items() if old.get(name) != content}
        _check_sizes(fresh)
        return _Made(after, fresh, after.versions)

    async def _commit(self, before: RepositoryState, made: _Made, write: Write) -> bool:
        now = to_micros(self._clock.now())
        async with self._database.unit_of_work() as work:
            if await stored.lock_timestamp(work.connection) != before.timestamp:
                return False
            await stored.add_files(work, made.fresh, now)
            await write(work, made.state)
            failpoints.hit("releases.before_commit")
        failpoints.hit("releases.after_commit")
        self._known = made.state
        if made.fresh:
            await self._published.note(made.versions)
        return True

    async def versions(self) -> Mapping[str, int]:
        """Return the version of each role. Raises as ``state``."""
        state = await self.state()
        return await asyncio.to_thread(lambda: state.versions)

    async def prune(self) -> int:
        """Delete metadata that no agent asks for any more; returns how many files."""
        current = set(await asyncio.to_thread((await self.state()).files))
        before = to_micros(self._clock.now()) - duration_micros(KEPT_FOR)
        async with self._database.unit_of_work() as work:
            return await stored.prune(work, current, before)


def damaged(sha256: str, error: Exception) -> DataLoss | Unavailable:
    """Return the refusal of stored bytes: ``DataLoss`` where they are not what they were, ``Unavailable``
    where they are not there, as of a disk that is not mounted. The log has it too.
    """
    _log.error("stored bytes are gone or damaged", sha256=sha256, error=str(error))
    words = f"what is stored of {sha256} is gone or damaged: an operator must put it back"
    if isinstance(error, BlobDamaged):
        return DataLoss("BYTES_DAMAGED", words)
    return Unavailable("UNAVAILABLE", words)


def _check_same(state: RepositoryState, online: Online) -> None:
    if state.roots[0] != online.trusted_root:
        raise trust_not_set_up(
            "the keys on this machine are of another repository than the database's: put back the folder "
            "that belongs to it"
        )


def _check_sizes(files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if len(content) > LARGEST_FILE:
            raise FailedPrecondition(
                "PACKAGE_NOT_RELEASED",
                f"{name}: {len(content)} bytes, and agents fetch {LARGEST_FILE} at most: withdraw old "
                "packages from the channel, or release to another one",
            )


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except RepositoryError as error:
        raise FailedPrecondition("PACKAGE_NOT_RELEASED", str(error)) from None


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except RepositoryError as error:
        _log.error("the repository's metadata is damaged", error=str(error))
        raise Unavailable("UNAVAILABLE", f"the repository's metadata is damaged: {error}") from None
