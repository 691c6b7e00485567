"""The keys that a process signs and releases with, in the folder that ``fleetwright trust init`` makes.

A process without that folder serves what others have released, and releases nothing. The folder is looked
for at each use until it is there, so that no server has to be started again for it.

Beside the keys stands which versions were published last. The database knows that too, but may be put back
from a backup, and agents never take a version again that is lower than one they have seen.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from controlplane.errors import FailedPrecondition
from controlplane.trust.files import write_file
from controlplane.trust.layout import DataFolderError
from controlplane.trust.tuf.ceremony import Online, load_online
from controlplane.trust.tuf.roles import RepositoryError

PUBLISHED: Final = "published.json"
"""The file of the versions, in the folder of the keys."""

_log = structlog.get_logger(__name__)


def trust_not_set_up(why: str) -> FailedPrecondition:
    """Return the refusal of what needs keys that are not here."""
    return FailedPrecondition("TRUST_NOT_SET_UP", why)


class ReleaseKeys:
    """The online keys of a repository, and those that attest. ``folder`` may not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._online: Online | None = None

    @property
    def here(self) -> bool:
        """Whether this process has keys, sound or not."""
        return self._online is not None or self._folder.is_dir()

    async def online(self) -> Online:
        """Return the keys, with the first metadata. Raises ``FailedPrecondition`` TRUST_NOT_SET_UP."""
        if self._online is None:
            self._online = await asyncio.to_thread(self._load)
        return self._online

    def _load(self) -> Online:
        if not self._folder.is_dir():
            raise trust_not_set_up(
                f"the keys that sign and release packages are not here ({self._folder}): run "
                "`fleetwright trust init`, or carry its online folder to this machine"
            )
        try:
            return load_online(self._folder)
        except (RepositoryError, DataFolderError) as error:
            raise trust_not_set_up(
                f"the keys that sign and release packages cannot be used: {error}"
            ) from None

    async def published(self) -> dict[str, int]:
        """Return the version of each role that this machine published last; nothing where nobody knows."""
        return await asyncio.to_thread(self._published)

    def _published(self) -> dict[str, int]:
        try:
            found = json.loads((self._folder / PUBLISHED).read_bytes())
        except (OSError, ValueError):
            return {}
        versions = found.items() if isinstance(found, dict) else ()
        return {name: version for name, version in versions if isinstance(version, int)}

    async def note_published(self, versions: Mapping[str, int]) -> None:
        """Remember versions. Where that cannot be written, it is logged, and nothing else."""
        content = json.dumps(dict(versions), sort_keys=True).encode() + b"\n"
        try:
            await asyncio.to_thread(write_file, self._folder / PUBLISHED, content)
        except OSError as error:
            _log.warning("published versions are not remembered", folder=str(self._folder), error=str(error))
