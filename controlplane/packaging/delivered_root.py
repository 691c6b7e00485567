"""The root that hosts get when they enrol, by which they judge packages from then on.

It is the newest root that the first one leads to, signature by signature. The first one is that of the folder
which ``fleetwright trust init`` made, where this machine has it: then nothing that the database says can
become a root without the keys that sign roots. A machine without the folder believes its database.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from controlplane.packaging.store import metadata as stored
from controlplane.storage.database import Database
from controlplane.trust.tuf.ceremony import TRUSTED_ROOT
from controlplane.trust.tuf.roles import RepositoryError
from controlplane.trust.tuf.state import check_next_root, root_version

LARGEST: Final = 512 * 1024
"""Bytes of a root; the contract's limit, and the agents'."""

_FIRST = "1.root.json"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Root:
    content: bytes
    version: int


class DeliveredRoot:
    """Asked at each enrolment: one look for a root that follows the newest known one.

    ``folder`` is that of the online keys; it may be missing, or come while the server runs.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._file = folder / TRUSTED_ROOT
        self._known: _Root | None = None

    async def current(self) -> bytes:
        """Return the root; nothing where there is none, or none that can be handed out, which is logged."""
        try:
            return await self._newest()
        except RepositoryError as error:
            # A host that has no root can be enrolled all the same: it refuses packages, and says why.
            _log.warning("no root is given to hosts that enrol", error=str(error))
            return b""

    async def _newest(self) -> bytes:
        known = self._known or await self._first()
        while known is not None:
            following = await self._stored(f"{known.version + 1}.root.json")
            if following is None:
                self._known = known
                return known.content
            await asyncio.to_thread(check_next_root, known.content, following)
            known = _sized(following, known.version + 1)
        return b""

    async def _first(self) -> _Root | None:
        own = await asyncio.to_thread(self._own)
        shared = await self._stored(_FIRST)
        if own is not None and shared is not None and own != shared:
            raise RepositoryError(
                f"{self._file}: not the first root of the repository in the database: put back the folder "
                "that belongs to it"
            )
        content = own or shared
        if content is None:
            return None
        return _sized(content, await asyncio.to_thread(root_version, content))

    def _own(self) -> bytes | None:
        try:
            with self._file.open("rb") as file:
                return file.read(LARGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RepositoryError(
                f"{self._file}: {error.strerror}: let the server's user read it, or put it back"
            ) from None

    async def _stored(self, name: str) -> bytes | None:
        async with self._database.reading() as connection:
            return await stored.find_file(connection, name)


def _sized(content: bytes, version: int) -> _Root:
    if len(content) > LARGEST:
        raise RepositoryError(f"root {version}: larger than the {LARGEST} bytes that agents take")
    return _Root(content, version)
