"""Which versions of the metadata this machine published last, in a file beside the keys.

The database knows them too, but may be put back from a backup, and agents never take a version again that is
lower than one they have seen.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from controlplane.trust.files import write_file

PUBLISHED: Final = "published.json"

_log = structlog.get_logger(__name__)


class PublishedVersions:
    """The version of each role, in the folder of the keys, which may not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PUBLISHED

    async def last(self) -> dict[str, int]:
        """Return the version of each role; nothing where nobody knows."""
        return await asyncio.to_thread(self._last)

    def _last(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        versions = found.items() if isinstance(found, dict) else ()
        return {name: version for name, version in versions if type(version) is int}

    async def note(self, versions: Mapping[str, int]) -> None:
        """Remember versions. Where that cannot be written, it is logged, and nothing else."""
        content = json.dumps(dict(versions), sort_keys=True).encode() + b"\n"
        try:
            await asyncio.to_thread(write_file, self._path, content)
        except OSError as error:
            _log.warning("published versions are not remembered", file=str(self._path), error=str(error))
