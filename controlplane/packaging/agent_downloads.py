"""What agents fetch: files of the metadata, and bytes that are released, at a rate that is shared.

The decision on a package is asked for when a download begins and again while it goes on: one that policy
turns against ends under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Protocol

from controlplane.errors import FailedPrecondition, NotFound, ResourceExhausted
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.downloads import Piece, verified
from controlplane.packaging.store import metadata
from controlplane.packaging.throughput import Throughput
from controlplane.storage.database import Database

PIECE_BYTES = 256 * 1024
"""Of the contract."""

LOOK_AGAIN = 5.0
"""Seconds after which a download asks again whether it may go on."""

_RETRY_AFTER = timedelta(seconds=15)


class MetadataSource(Protocol):
    """What has the files of the metadata: ``Releases``."""

    async def metadata(self, file_name: str) -> bytes:
        """Return a file. Raises ``NotFound`` and ``FailedPrecondition``."""


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """What an operator sets for one process.

    ``bytes_per_second`` are shared by all downloads, 0 for no limit; ``at_once`` may go on at a time, and of
    one agent ``of_one_agent``.
    """

    bytes_per_second: int = 0
    burst_bytes: int = 4 << 20
    at_once: int = 256
    of_one_agent: int = 4


class AgentDownloads:
    """Use cases of agents."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        source: MetadataSource,
        policy: DownloadPolicy = DownloadPolicy(),
        now: Callable[[], float] = monotonic,
        throughput: Throughput | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._source = source
        self._policy = policy
        self._now = now
        self._throughput = throughput or Throughput(policy.bytes_per_second, policy.burst_bytes)
        self._under_way: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """How many downloads go on."""
        return self._under_way.total()

    async def metadata(self, file_name: str) -> bytes:
        """Return a file of the metadata.

        Raises ``NotFound`` METADATA_UNKNOWN and ``FailedPrecondition`` TRUST_NOT_SET_UP.
        """
        return await self._source.metadata(file_name)

    async def artefact(self, agent_id: str, sha256: str, offset: int) -> AsyncGenerator[Piece, None]:
        """Yield released bytes from ``offset`` on, in pieces of 256 KiB; an empty one where that is the end.

        Raises ``NotFound`` PACKAGE_UNKNOWN, ``FailedPrecondition`` PACKAGE_NOT_RELEASED, also while it goes
        on, ``InvalidArgument`` for an offset behind the end, ``ResourceExhausted`` RATE_LIMITED where too
        many downloads go on, ``Unavailable`` where the bytes are gone, and ``DataLoss`` where they are
        damaged.
        """
        with self._slot(agent_id):
            size, looked = await self._size(sha256), self._now()
            async with aclosing(verified(self._blobs, sha256, size, offset, PIECE_BYTES)) as pieces:
                async for piece in pieces:
                    await self._throughput.take(len(piece.data))
                    if self._now() - looked >= LOOK_AGAIN:
                        await self._size(sha256)
                        looked = self._now()
                    yield piece

    async def _size(self, sha256: str) -> int:
        async with self._database.reading() as connection:
            size = await metadata.served(connection, sha256)
            known = size is not None or await metadata.is_known(connection, sha256)
        if size is not None:
            return size
        if not known:
            raise NotFound("PACKAGE_UNKNOWN", f"sha256: nothing of {sha256} was ever released here")
        raise FailedPrecondition(
            "PACKAGE_NOT_RELEASED", f"sha256: {sha256} is not released, or not any more; refresh the metadata"
        )

    @contextmanager
    def _slot(self, agent_id: str) -> Iterator[None]:
        policy = self._policy
        if self.under_way >= policy.at_once or self._under_way[agent_id] >= policy.of_one_agent:
            raise ResourceExhausted(
                "RATE_LIMITED",
                f"{self.under_way} downloads go on here, {self._under_way[agent_id]} of them of {agent_id}; "
                "come back later",
                retry_after=_RETRY_AFTER,
            )
        self._under_way[agent_id] += 1
        try:
            yield
        finally:
            self._under_way[agent_id] -= 1
            if not self._under_way[agent_id]:
                del self._under_way[agent_id]
