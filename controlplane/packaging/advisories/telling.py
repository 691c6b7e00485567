"""What the records in force say of components, as they say it: for another engine that judges it anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from controlplane.packaging.advisories import rows, rules, severity
from controlplane.packaging.advisories.names import base, normalise, releases
from controlplane.packaging.advisories.records import Affected, Rated, Record
from controlplane.packaging.advisories.scanning import Advisories
from controlplane.packaging.records import Component


@dataclass(frozen=True, slots=True)
class Told:
    """What one record says of a component's package."""

    component: Component
    record: Record
    """Without its ranges, which are in ``blocks``."""
    blocks: Sequence[Affected]

    def rated(self) -> Rated:
        """Return how bad it is by the record itself."""
        name = normalise(self.component.ecosystem, self.component.name)
        own = [one for one in self.record.affected if normalise(one.ecosystem, one.name) == name]
        return severity.rate(self.record, own)


async def told(
    components: Iterable[Component], advisories: Advisories, ecosystems: Collection[str]
) -> list[Told]:
    """Return what records say of those components that are of the ``ecosystems``.

    Raises ``rules.CorruptError`` for what is stored and cannot be read.
    """
    given = [one for one in components if base(one.ecosystem) in ecosystems]
    found: list[Told] = []
    for standing in await advisories.standings():
        of_it = [one for one in given if base(one.ecosystem) == standing.ecosystem]
        for release in sorted({one for each in of_it for one in releases(each.ecosystem, standing.releases)}):
            found += await _of_release(of_it, advisories, standing.version, release)
    return found


async def _of_release(
    components: Sequence[Component], advisories: Advisories, version: int, release: str
) -> list[Told]:
    by_name: dict[str, list[Component]] = {}
    for one in components:
        by_name.setdefault(normalise(one.ecosystem, one.name), []).append(one)
    stored = sorted(await advisories.entries(version, release, by_name))
    briefs = await advisories.briefs(version, {advisory for _, advisory, _ in stored})
    try:
        return [
            Told(component, briefs[advisory], rows.decode(release, name, entry))
            for name, advisory, entry in stored
            for component in by_name[name]
        ]
    except (rows.EntryError, KeyError) as error:
        raise rules.CorruptError(f"{error}; import the advisories again") from None
