"""The keys that a process signs and releases with, in the folder that ``fleetwright trust init`` makes.

A process without that folder serves what others have released, and releases nothing. The folder is looked
for at each use until it is there, so that no server has to be started again for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from fleetwright.verify.keys import Purpose

from controlplane.errors import FailedPrecondition
from controlplane.trust.keys import SigningKey
from controlplane.trust.layout import DataFolderError
from controlplane.trust.tuf.ceremony import Online, load_online
from controlplane.trust.tuf.roles import RepositoryError

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
    def folder(self) -> Path:
        """Where they are, or will be."""
        return self._folder

    @property
    def here(self) -> bool:
        """Whether this process has keys, sound or not."""
        return self._online is not None or self._folder.is_dir()

    async def online(self, *, again: bool = False) -> Online:
        """Return the keys, with the first metadata; ``again`` reads keys that came since.

        Raises ``FailedPrecondition`` TRUST_NOT_SET_UP.
        """
        if self._online is None or again:
            self._online = await asyncio.to_thread(self._load)
        return self._online

    def attester(self, purpose: Purpose) -> SigningKey | None:
        """Return the key that attests something; None where it is not here, or cannot be used."""
        try:
            self._online = self._online or self._load()
        except FailedPrecondition as error:
            # What needs the key says so; here is why.
            _log.warning("no key to attest with", purpose=purpose.value, error=error.message)
            return None
        return self._online.attesters.get(purpose)

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
