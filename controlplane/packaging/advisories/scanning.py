"""The scan: every component against the advisories in force, with what could not be looked at.

The same components, advisories, statements and instant give the same result. Advisories that a component
needs and that cannot be used raise an ``AdvisoryDataError`` (``rules``): a scan over them would find nothing
and mean nothing. A component whose ecosystem no import knows is "not covered", which is not "clean".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.packaging.advisories import matching, rules, severity, vex
from controlplane.packaging.advisories.aliases import Hit, merge
from controlplane.packaging.advisories.collecting import (
    Advisories,
    Entries,
    Wanted,
    distinct,
    entries_of,
    is_of_release,
    read_entries,
    wanted_of,
)
from controlplane.packaging.advisories.engines.records import Answers, Question
from controlplane.packaging.advisories.matching import Outcome, Verdict
from controlplane.packaging.advisories.names import normalise
from controlplane.packaging.advisories.records import Coverage, Rated, Record, Scanned, Standing
from controlplane.packaging.advisories.rows import Entry, EntryError
from controlplane.packaging.records import Component, Finding


class Place(NamedTuple):
    """A record within an import: ids are of one import, and two may have the same."""

    version: int
    advisory: str


class _Met(NamedTuple):
    """A record that affects a component, or may, as this engine or another one says."""

    release: str
    """The ecosystem with release that it speaks of."""
    verdict: Verdict
    own: bool
    """Whether this engine says so."""
    other: bool | None
    """Whether the other engine does, None where it did not judge."""


@dataclass(slots=True)
class _Judged:
    """What all records about a component mean for it."""

    component: Component
    name: str
    """Normalised, as records have it."""
    hits: dict[Place, _Met] = field(default_factory=dict)
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
    answers: Answers | None = None,
) -> Scanned:
    """Return what is known against components.

    ``now`` and ``max_age`` are microseconds. ``statements`` are applied to the findings; ``product`` is the
    purl of the whole package, for statements about it. ``required`` ecosystems must be in force even if no
    component needs them. What another engine answered (``answers``) is joined: what it alone calls affected
    is a finding too. Raises ``rules.AdvisoryDataError``.
    """
    standings = await advisories.standings()
    if not standings:
        raise rules.MissingError("no advisories are in force; import an export first")
    wanted = [wanted_of(component, standings) for component in distinct(components)]
    coverage = await _coverage(wanted, standings, advisories, now, max_age, required)
    judged = _judge(wanted, await read_entries(wanted, advisories), answers)
    briefs = await _briefs(judged, advisories)
    ids = {one for record in briefs.values() for one in (record.id, *record.aliases, *record.upstream)}
    linked = await _linked(ids, standings, advisories)
    through = await _through(briefs, linked, [one.version for one in standings], advisories)
    against = await _against(judged, ids, linked, advisories)
    engine = answers.engine if answers is not None else ""
    findings = [
        finding
        for one in judged
        if one.hits
        for finding in _findings(one, briefs, linked, through, against, engine)
    ]
    return Scanned(vex.apply(findings, statements, product), coverage)


async def _coverage(
    wanted: Sequence[Wanted],
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


def _judge(wanted: Sequence[Wanted], stored: Entries, answers: Answers | None) -> list[_Judged]:
    known: dict[tuple[int, str, str], list[Entry]] = {}
    judged = []
    for one in wanted:
        about = _Judged(one.component, one.name)
        judged.append(about)
        for version, release in one.places:
            key = (version, release, one.name)
            if key not in known:
                known[key] = entries_of(release, one.name, stored.get(key, ()))
            if known[key]:
                _judge_in(about, version, Question(release, one.name, one.version), known[key], answers)
    return judged


def _judge_in(
    about: _Judged, version: int, question: Question, known: Sequence[Entry], answers: Answers | None
) -> None:
    """Judge a component by what an import says of its package in one release."""
    judge = matching.judging(question.ecosystem, question.name, question.version)
    release = question.ecosystem
    known_release = is_of_release(about.component, release)
    said = answers.said.get(question, {}) if answers is not None and known_release else {}
    for entry in known:
        try:
            verdict = judge(entry)
        except EntryError as error:
            raise rules.CorruptError(f"{error}; import the advisories again") from None
        other = said.get(entry.advisory)
        place = Place(version, entry.advisory)
        if verdict.outcome is Outcome.NOT_AFFECTED and not other:
            about.clean.append(place)
        else:
            own = verdict.outcome is not Outcome.NOT_AFFECTED
            if not known_release:
                words = f"{verdict.words} (the component's release is not known; this is of {release})"
                verdict = Verdict(verdict.outcome, words, verdict.fixed)
            _add(about, place, _Met(release, verdict if own else matching.BY_ANOTHER, own, other))


def _add(about: _Judged, place: Place, met: _Met) -> None:
    former = about.hits.get(place)
    if former is None or (former.verdict.outcome is Outcome.UNDECIDED and met.own) or not former.own:
        about.hits[place] = met


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
    engine: str,
) -> list[Finding]:
    hits = []
    ids: set[str] = set()
    for place in sorted(one.hits):
        met, record = one.hits[place], briefs[place]
        ids |= record.ids
        rated = _rated(one.name, met.release, record, through.get(place, ()))
        hits.append(Hit(record, met.verdict, rated, met.own, met.other))
    others = [
        Hit(against[place], matching.NOT_AFFECTED)
        for place in (sorted(against.keys() & set(one.clean)) if against else ())
        if ids & against[place].ids
    ]
    return merge(one.component, hits, others, engine)


def _rated(name: str, release: str, record: Record, through: Sequence[Record]) -> Rated:
    blocks = [
        block
        for block in record.affected
        if block.ecosystem == release and normalise(release, block.name) == name
    ]
    return severity.rate(record, blocks, through)
