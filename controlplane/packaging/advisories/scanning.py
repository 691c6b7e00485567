"""The scan: every component against the advisories in force, with what could not be looked at.

The same components, advisories, statements and instant give the same result. Advisories that a component
needs and that cannot be used raise an ``AdvisoryDataError`` (``rules``): a scan over them would find nothing
and mean nothing. A component whose ecosystem no import knows is "not covered", which is not "clean".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from controlplane.packaging.advisories import matching, rows, rules, severity, vex
from controlplane.packaging.advisories.aliases import Hit, merge
from controlplane.packaging.advisories.matching import Outcome, Verdict
from controlplane.packaging.advisories.names import base, normalise, releases, split_purl
from controlplane.packaging.advisories.records import (
    Affected,
    Coverage,
    Rated,
    Record,
    Scanned,
    Standing,
)
from controlplane.packaging.records import Component, Finding


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


class Place(NamedTuple):
    """A record within an import: ids are of one import, and two may have the same."""

    version: int
    advisory: str


class _Wanted(NamedTuple):
    """A component as records may name it."""

    component: Component
    name: str
    version: str
    standing: Standing | None
    releases: Sequence[str]


@dataclass(slots=True)
class _Judged:
    """What all records about a component mean for it."""

    component: Component
    name: str
    """Normalised, as records have it."""
    hits: dict[Place, tuple[str, Verdict]] = field(default_factory=dict)
    """By record: the ecosystem with release that it speaks of, and the verdict."""
    clean: list[Place] = field(default_factory=list)


async def scan(
    components: Iterable[Component],
    advisories: Advisories,
    *,
    now: int,
    max_age: int,
    statements: Sequence[vex.Statement] = (),
    product: str = "",
    required: Collection[str] = (),
) -> Scanned:
    """Return what is known against components.

    ``now`` and ``max_age`` are microseconds. ``statements`` are applied to the findings; ``product`` is the
    purl of the whole package, for statements about it. ``required`` ecosystems must be in force even if no
    component needs them. Raises ``rules.AdvisoryDataError``.
    """
    standings = await advisories.standings()
    if not standings:
        raise rules.MissingError("no advisories are in force; import an export first")
    wanted = [_wanted(component, standings) for component in _distinct(components)]
    coverage = await _coverage(wanted, standings, advisories, now, max_age, required)
    judged = _judge(wanted, await _entries(wanted, advisories))
    briefs = await _briefs(judged, advisories)
    ids = {one for record in briefs.values() for one in (record.id, *record.aliases, *record.upstream)}
    linked = await _linked(ids, standings, advisories)
    through = await _through(briefs, linked, [one.version for one in standings], advisories)
    against = await _against(judged, ids, linked, advisories)
    findings = [
        finding for one in judged if one.hits for finding in _findings(one, briefs, linked, through, against)
    ]
    return Scanned(vex.apply(findings, statements, product), coverage)


def _distinct(components: Iterable[Component]) -> list[Component]:
    same = {(one.purl, one.ecosystem, one.name, one.version): one for one in components}
    return [same[key] for key in sorted(same)]


def _wanted(component: Component, standings: Sequence[Standing]) -> _Wanted:
    standing = next((one for one in standings if one.ecosystem == base(component.ecosystem)), None)
    known = releases(component.ecosystem, standing.releases) if standing else []
    name, version = _as_recorded(component)
    return _Wanted(
        component, normalise(component.ecosystem, name), version, standing if known else None, known
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


async def _coverage(
    wanted: Sequence[_Wanted],
    standings: Sequence[Standing],
    advisories: Advisories,
    now: int,
    max_age: int,
    required: Collection[str],
) -> Coverage:
    covered = {one.component.ecosystem: one.standing for one in wanted if one.standing is not None}
    not_covered: dict[str, int] = {}
    for one in wanted:
        if one.standing is None:
            not_covered[one.component.ecosystem] = not_covered.get(one.component.ecosystem, 0) + 1
    in_force = {one.ecosystem: one for one in standings}
    missing = sorted(set(required) - set(in_force))
    if missing:
        raise rules.MissingError(f"no advisories of {', '.join(missing)} are in force; import their exports")
    needed = {*(one.ecosystem for one in covered.values()), *required}
    ages = {}
    for ecosystem in sorted(needed):
        one_standing = in_force[ecosystem]
        counted = await advisories.counted(one_standing.version)
        ages[ecosystem] = rules.check_usable(
            facts_of(one_standing), counted, one_standing.newest_ever, now, max_age
        )
    return Coverage(dict(sorted(covered.items())), dict(sorted(not_covered.items())), ages, tuple(standings))


def facts_of(standing: Standing) -> rules.Facts:
    """Return what the rules ask of an import in force."""
    return rules.Facts(
        ecosystem=standing.ecosystem,
        digest=standing.digest,
        records=standing.records,
        entries=standing.entries,
        newest=standing.newest_modified,
    )


_Entries = Mapping[tuple[int, str, str], Sequence[tuple[str, bytes]]]
"""By import, ecosystem with release, and name: advisory ids with their stored entries."""


async def _entries(wanted: Sequence[_Wanted], advisories: Advisories) -> _Entries:
    names: dict[tuple[int, str], set[str]] = {}
    for one in wanted:
        for release in one.releases if one.standing else ():
            names.setdefault((one.standing.version, release), set()).add(one.name)  # type: ignore[union-attr]
    found: dict[tuple[int, str, str], list[tuple[str, bytes]]] = {}
    for (version, release), asked in sorted(names.items()):
        for name, advisory, stored in await advisories.entries(version, release, asked):
            found.setdefault((version, release, name), []).append((advisory, stored))
    return found


def _judge(wanted: Sequence[_Wanted], entries: _Entries) -> list[_Judged]:
    decoded: dict[tuple[int, str, str], list[tuple[str, list[Affected]]]] = {}
    judged = []
    for one in wanted:
        about = _Judged(one.component, one.name)
        judged.append(about)
        for release in one.releases if one.standing else ():
            version = one.standing.version  # type: ignore[union-attr]
            key = (version, release, one.name)
            if key not in decoded:
                decoded[key] = _decoded(release, one.name, entries.get(key, ()))
            for advisory, blocks in decoded[key]:
                _add(about, Place(version, advisory), release, matching.judge(release, one.version, blocks))
    return judged


def _decoded(
    release: str, name: str, stored: Iterable[tuple[str, bytes]]
) -> list[tuple[str, list[Affected]]]:
    try:
        return [(advisory, rows.decode(release, name, entry)) for advisory, entry in stored]
    except rows.EntryError as error:
        raise rules.CorruptError(f"{error}; import the advisories again") from None


def _add(about: _Judged, place: Place, release: str, verdict: Verdict) -> None:
    if verdict.outcome is Outcome.NOT_AFFECTED:
        about.clean.append(place)
        return
    if base(about.component.ecosystem) == about.component.ecosystem != release:
        words = f"{verdict.words} (the component's release is not known; this is of {release})"
        verdict = Verdict(verdict.outcome, words, verdict.fixed)
    former = about.hits.get(place)
    if former is None or former[1].outcome is Outcome.UNDECIDED:
        about.hits[place] = (release, verdict)


async def _briefs(judged: Sequence[_Judged], advisories: Advisories) -> dict[Place, Record]:
    found = await _read((place for one in judged for place in one.hits), advisories)
    missing = sorted({place for one in judged for place in one.hits if place not in found})
    if missing:
        raise rules.CorruptError(
            f"{missing[0].advisory} has entries and no record; import the advisories again"
        )
    return found


async def _read(places: Iterable[Place], advisories: Advisories) -> dict[Place, Record]:
    ids: dict[int, set[str]] = {}
    for place in places:
        ids.setdefault(place.version, set()).add(place.advisory)
    return {
        Place(version, identifier): record
        for version, asked in sorted(ids.items())
        for identifier, record in (await advisories.briefs(version, asked)).items()
    }


async def _linked(
    ids: Collection[str], standings: Sequence[Standing], advisories: Advisories
) -> dict[str, set[Place]]:
    """Return by id the records that have it as an alias, for the ids of what was hit."""
    found: dict[str, set[Place]] = {}
    for standing in standings:
        for alias, advisory in await advisories.linked(standing.version, ids) if ids else ():
            found.setdefault(alias, set()).add(Place(standing.version, advisory))
    return found


async def _through(
    briefs: Mapping[Place, Record],
    linked: Mapping[str, set[Place]],
    versions: Sequence[int],
    advisories: Advisories,
) -> dict[Place, list[Record]]:
    """Return, for records without a vector of their own, those that may know the severity: aliases first."""
    unrated = {place: record for place, record in briefs.items() if severity.rate(record).score is None}
    asked = {
        place: [_of(linked, [record.id, *record.aliases], versions), _of(linked, record.upstream, versions)]
        for place, record in unrated.items()
    }
    read = await _read(
        {other for groups in asked.values() for group in groups for other in group}, advisories
    )
    return {
        place: [
            read[other] for group in groups for other in sorted(group) if other in read and other != place
        ]
        for place, groups in asked.items()
    }


def _of(linked: Mapping[str, set[Place]], ids: Sequence[str], versions: Sequence[int]) -> set[Place]:
    """Return the places of records that have one of the ids as an alias, or may have it as their own."""
    named = {Place(version, one) for version in versions for one in ids}
    return named.union(*(linked.get(one, ()) for one in ids))


async def _against(
    judged: Sequence[_Judged],
    ids: Collection[str],
    linked: Mapping[str, set[Place]],
    advisories: Advisories,
) -> dict[Place, Record]:
    """Return records of a vulnerability that was hit which say of the same component "not affected"."""
    named = {place for places in linked.values() for place in places}
    return await _read(
        (
            place
            for one in judged
            if one.hits
            for place in one.clean
            if place in named or place.advisory in ids
        ),
        advisories,
    )


def _findings(
    one: _Judged,
    briefs: Mapping[Place, Record],
    linked: Mapping[str, set[Place]],
    through: Mapping[Place, list[Record]],
    against: Mapping[Place, Record],
) -> list[Finding]:
    hits = []
    ids: set[str] = set()
    for place, (release, verdict) in sorted(one.hits.items()):
        record = briefs[place]
        ids |= record.ids
        hits.append(Hit(record, verdict, _rated(one.name, release, record, through.get(place, ()))))
    others = [
        Hit(against[place], matching.NOT_AFFECTED)
        for place in sorted(set(one.clean))
        if place in against and ids & against[place].ids
    ]
    return merge(one.component, hits, others)


def _rated(name: str, release: str, record: Record, through: Sequence[Record]) -> Rated:
    blocks = [
        block
        for block in record.affected
        if block.ecosystem == release and normalise(release, block.name) == name
    ]
    return severity.rate(record, blocks, through)
