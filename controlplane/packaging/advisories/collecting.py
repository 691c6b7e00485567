"""What is asked of the store about components: which records may speak of each, and their entries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from controlplane.packaging.advisories import rows, rules
from controlplane.packaging.advisories.engines.records import Asking, Question
from controlplane.packaging.advisories.names import base, normalise, releases, split_purl
from controlplane.packaging.advisories.records import Affected, Record, Standing
from controlplane.packaging.advisories.rows import Entry
from controlplane.packaging.records import Component


class Advisories(Protocol):
    """What a scan asks of the store (``store/lookup.py``), within one snapshot."""

    async def standings(self) -> Sequence[Standing]:
        """Return the imports that are in force."""

    async def counted(self, version: int) -> tuple[int, int]:
        """Return how many records and entries of an import are there now."""

    async def entries(
        self, version: int, ecosystem: str, names: Collection[str]
    ) -> list[tuple[str, str, bytes]]:
        """Return name, advisory id and stored entry of every record about the packages."""

    async def linked(self, version: int, aliases: Collection[str]) -> list[tuple[str, str]]:
        """Return alias and id of every record that has one of the names as an alias."""

    async def briefs(self, version: int, ids: Collection[str]) -> dict[str, Record]:
        """Return what a scan needs of records, by id."""


class Wanted(NamedTuple):
    """A component as records may name it."""

    component: Component
    name: str
    version: str
    standing: Standing | None
    """The import that knows of it, None for none."""
    places: Sequence[tuple[int, str]]
    """Where it may be spoken of: the import by its version, and the ecosystem with release."""


async def asking(components: Iterable[Component], advisories: Advisories) -> Asking:
    """Return what is known about components, for another engine to judge. Raises ``rules.CorruptError``."""
    standings = await advisories.standings()
    wanted = [wanted_of(component, standings) for component in distinct(components)]
    stored = await read_entries(wanted, advisories)
    known: dict[Question, list[tuple[str, list[Affected]]]] = {}
    for one in wanted:
        for version, release in one.places:
            question = Question(release, one.name, one.version)
            if is_of_release(one.component, release) and question not in known:
                known[question] = _blocks(question, stored.get((version, release, one.name), ()))
    return Asking(tuple(standings), known)


def _blocks(question: Question, stored: Iterable[tuple[str, bytes]]) -> list[tuple[str, list[Affected]]]:
    try:
        return [
            (advisory, rows.decode(question.ecosystem, question.name, content))
            for advisory, content in stored
        ]
    except rows.EntryError as error:
        raise rules.CorruptError(f"{error}; import the advisories again") from None


def is_of_release(component: Component, release: str) -> bool:
    """Return whether records of a release speak of a component for sure: its own release may not be known."""
    return base(component.ecosystem) != component.ecosystem or component.ecosystem == release


def distinct(components: Iterable[Component]) -> list[Component]:
    """Return each component once, in an order of their own."""
    same = {(one.purl, one.ecosystem, one.name, one.version): one for one in components}
    return [same[key] for key in sorted(same)]


def wanted_of(component: Component, standings: Sequence[Standing]) -> Wanted:
    """Return how records may name a component, and which import knows of it."""
    standing = next((one for one in standings if one.ecosystem == base(component.ecosystem)), None)
    known = releases(component.ecosystem, standing.releases) if standing else []
    name, version = _as_recorded(component)
    places = [(standing.version, release) for release in known] if standing else []
    return Wanted(
        component, normalise(component.ecosystem, name), version, standing if known else None, places
    )


def _as_recorded(component: Component) -> tuple[str, str]:
    """Return name and version as records write them, where the purl has them in its qualifiers.

    Debian's records are of source packages; an RPM's purl has its epoch apart
    (package-url/purl-spec, "deb" and "rpm").
    """
    name, version = component.name, component.version
    kind, _, qualifiers = split_purl(component.purl)
    if kind.startswith("pkg:deb/"):
        source, _, of_source = qualifiers.get("upstream", qualifiers.get("source", "")).partition("@")
        return source or name, of_source or version
    epoch = qualifiers.get("epoch", "")
    if kind.startswith("pkg:rpm/") and epoch and ":" not in version:
        return name, f"{epoch}:{version}"
    return name, version


Entries = Mapping[tuple[int, str, str], Sequence[tuple[str, bytes]]]
"""By import, ecosystem with release, and name: advisory ids with their stored entries."""


async def read_entries(wanted: Sequence[Wanted], advisories: Advisories) -> Entries:
    """Return what is kept about the packages that are wanted, in few questions."""
    names: dict[tuple[int, str], set[str]] = {}
    for one in wanted:
        for place in one.places:
            names.setdefault(place, set()).add(one.name)
    found: dict[tuple[int, str, str], list[tuple[str, bytes]]] = {}
    for (version, release), asked in sorted(names.items()):
        for name, advisory, stored in await advisories.entries(version, release, asked):
            found.setdefault((version, release, name), []).append((advisory, stored))
    return found


def entries_of(release: str, name: str, stored: Iterable[tuple[str, bytes]]) -> list[Entry]:
    """Return the entries of a package. Raises ``rules.CorruptError``."""
    try:
        return [rows.entry(release, name, advisory, content) for advisory, content in stored]
    except rows.EntryError as error:
        raise rules.CorruptError(f"{error}; import the advisories again") from None
