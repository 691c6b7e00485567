"""Bundles on their way out: a released package with all that is needed to verify it on another machine.

``controlplane.trust.bundles`` writes one; ``fleetwright.verify.bundle`` says what is in it, and verifies it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from fleetwright.verify.evidence import attestations_path

from controlplane.errors import FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from controlplane.packaging.blobs import BlobDamaged, BlobMissing, Blobs
from controlplane.packaging.downloads import Piece
from controlplane.packaging.repository import Repository, damaged
from controlplane.packaging.store import releases
from controlplane.storage.database import Database
from controlplane.trust import bundles
from controlplane.trust.tuf.publishing import released
from controlplane.trust.tuf.roles import RepositoryError
from controlplane.trust.tuf.state import RepositoryState

AT_ONCE = 4
"""Bundles of one process at a time: each takes the room of two packages on the disk."""

_ATTEMPTS = 3
_RETRY_AFTER = timedelta(seconds=30)


class _Changed(Exception):
    """What was released when the export began is not any more."""


class Exports:
    """Writes bundles into ``scratch``, a folder with room for twice the largest package."""

    def __init__(self, database: Database, blobs: Blobs, repository: Repository, scratch: Path) -> None:
        self._database = database
        self._blobs = blobs
        self._repository = repository
        self._scratch = scratch
        self._under_way = 0

    async def bundle(self, package_sha256: str, piece_bytes: int = 1 << 20) -> AsyncGenerator[Piece, None]:
        """Yield the bundle of a package, a zip.

        Raises ``NotFound`` PACKAGE_UNKNOWN, ``FailedPrecondition`` PACKAGE_NOT_RELEASED and
        TRUST_NOT_SET_UP, ``ResourceExhausted`` RATE_LIMITED where too many are written, ``Unavailable``
        where bytes are gone, and ``DataLoss`` where they are damaged.
        """
        with self._turn(), tempfile.TemporaryDirectory(dir=self._scratch, prefix="bundle-") as folder:
            path = await self._written(package_sha256, Path(folder))
            total, offset = path.stat().st_size, 0
            with path.open("rb") as file:
                while data := await asyncio.to_thread(file.read, piece_bytes):
                    yield Piece(offset, data, total)
                    offset += len(data)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._under_way >= AT_ONCE:
            raise ResourceExhausted(
                "RATE_LIMITED",
                f"{self._under_way} bundles are written here already; come back later",
                retry_after=_RETRY_AFTER,
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _written(self, package_sha256: str, folder: Path) -> Path:
        for number in range(_ATTEMPTS):
            try:
                return await self._write(package_sha256, folder / str(number))
            except _Changed:
                continue
        raise Unavailable("UNAVAILABLE", f"packages/{package_sha256} is judged without a pause; try again")

    async def _write(self, package_sha256: str, folder: Path) -> Path:
        target = await self._target(package_sha256)
        state = await self._repository.state()
        digest = _attestations(state, target)
        await asyncio.to_thread(folder.mkdir)
        package, attestations = folder / "package", folder / "attestations"
        try:
            await self._blobs.fetch(package_sha256, package)
        except (BlobMissing, BlobDamaged) as error:
            raise damaged(package_sha256, error) from None
        try:
            await self._blobs.fetch(digest, attestations)
        except BlobMissing:
            raise _Changed from None
        except BlobDamaged as error:
            raise damaged(digest, error) from None
        keys = await self._repository.key_document()
        try:
            return await asyncio.to_thread(
                lambda: bundles.export(
                    folder / "bundle.zip",
                    target=target,
                    package=package,
                    attestations=attestations.read_bytes(),
                    keys=keys,
                    state=state,
                )
            )
        except RepositoryError as error:
            raise Unavailable("UNAVAILABLE", f"the bundle cannot be written: {error}") from None

    async def _target(self, package_sha256: str) -> str:
        async with self._database.reading() as connection:
            found = await releases.find(connection, package_sha256)
        if found is None:
            raise NotFound("PACKAGE_UNKNOWN", f"name: there is no packages/{package_sha256}")
        if not found.decision.releases or not found.target_path:
            raise FailedPrecondition(
                "PACKAGE_NOT_RELEASED",
                f"packages/{package_sha256}: not released, so that nobody could verify its bundle; "
                "DownloadPackage has its parts",
            )
        return found.target_path


def _attestations(state: RepositoryState, target: str) -> str:
    """Return the digest of the attestations that this very state releases."""
    found = released(state, target.partition("/")[0]).get(attestations_path(target))
    if found is None:
        raise _Changed
    return found.sha256
