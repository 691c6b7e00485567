"""Packages as administrators see them: what the factory made, with the decision that stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.errors import NotFound
from controlplane.filtering import BoundFilter
from controlplane.packaging.store import packages as stored
from controlplane.packaging.store.packages import FindingRecord, PackageRecord
from controlplane.storage.database import Database


class InstalledCounts(Protocol):
    """Who knows on how many agents packages are installed."""

    async def installed_counts(self, packages: Sequence[str], /) -> Mapping[str, int]:
        """Return, by SHA-256, on how many agents a package is installed; packages on none may be missing."""


@dataclass(frozen=True, slots=True)
class PackageView:
    """A package with its attestations, by kind and digest, and the number of agents that have it."""

    package: PackageRecord
    attestations: Mapping[str, str] = field(default_factory=dict)
    installed_count: int = 0


class PackagesService:
    """Reading packages."""

    def __init__(self, database: Database, installed: InstalledCounts) -> None:
        self._database = database
        self._installed = installed

    async def get(self, sha256: str) -> PackageView:
        """Return a package. Raises ``NotFound`` PACKAGE_UNKNOWN."""
        found = await self._database.read(lambda connection: stored.find(connection, sha256))
        if found is None:
            raise unknown(sha256)
        (view,) = await self._views([found])
        return view

    async def page(
        self, chosen: BoundFilter, before: tuple[int, str] | None, limit: int
    ) -> Sequence[PackageView]:
        """Return packages that match ``store.packages.FILTER``, newest first.

        ``before`` is (create_time, sha256) of the last one of the former page.
        """
        found = await self._database.read(lambda connection: stored.page(connection, chosen, before, limit))
        return await self._views(found)

    async def count(self, chosen: BoundFilter) -> int:
        """Return how many packages match."""
        return await self._database.read(lambda connection: stored.count(connection, chosen))

    async def findings(self, sha256: str, after: int, limit: int) -> Sequence[FindingRecord]:
        """Return findings of a package, the most severe first, behind the place ``after`` (0 for all).

        Places are those of the last scan. Raises ``NotFound`` PACKAGE_UNKNOWN.
        """

        async def question(connection: Any) -> list[FindingRecord] | None:
            if await stored.find(connection, sha256) is None:
                return None
            return await stored.findings(connection, sha256, after, limit)

        found = await self._database.read(question)
        if found is None:
            raise unknown(sha256)
        return found

    async def count_findings(self, sha256: str) -> int:
        """Return how many findings a package has."""
        return await self._database.read(lambda connection: stored.count_findings(connection, sha256))

    async def envelope(self, sha256: str, kind: str) -> bytes:
        """Return an attestation of a package, a DSSE envelope. Raises ``NotFound`` PACKAGE_UNKNOWN."""

        async def question(connection: Any) -> tuple[bytes | None, list[str]]:
            known = (await stored.attestations(connection, [sha256])).get(sha256, {})
            return (await stored.envelope(connection, sha256, kind) if kind in known else None), list(known)

        found, kinds = await self._database.read(question)
        if found is None:
            has = f"; it has {', '.join(kinds)}" if kinds else ""
            raise NotFound("PACKAGE_UNKNOWN", f"part: packages/{sha256} has no part {kind!r}{has}")
        return found

    async def _views(self, found: Sequence[PackageRecord]) -> list[PackageView]:
        if not found:
            return []
        digests = [one.sha256 for one in found]
        known = await self._database.read(lambda connection: stored.attestations(connection, digests))
        counts = await self._installed.installed_counts(digests)
        return [PackageView(one, known.get(one.sha256, {}), counts.get(one.sha256, 0)) for one in found]


def unknown(sha256: str) -> NotFound:
    """Return the refusal of a digest that no package has."""
    return NotFound(
        "PACKAGE_UNKNOWN", f"name: there is no packages/{sha256}; list them to see which there are"
    )
