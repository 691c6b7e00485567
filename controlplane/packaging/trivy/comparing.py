"""Two engines over the same advisories: what both found, and what only one of them did. Pure.

Nothing that either found is lost: what only the second one says is a finding too, which is not certain, and
every difference stands in the finding that it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from controlplane.packaging.advisories.aliases import leading
from controlplane.packaging.advisories.telling import Told
from controlplane.packaging.records import Finding

SECOND = "trivy"
Hit = tuple[str, str]
"""A component's package URL, and the id of a record that affects it."""


def joined(findings: Sequence[Finding], asked: Sequence[Told], hits: frozenset[Hit]) -> list[Finding]:
    """Return the findings of both engines. ``hits`` are the second one's, of what it was ``asked``."""
    known = {(one.component.purl, one.record.id) for one in asked}
    told = [_second_on(one, known, hits) for one in findings]
    ours = {(one.component, record) for one in findings for record in one.sources}
    for one in asked:
        place = one.component.purl, one.record.id
        if place in hits and place not in ours:
            told = _with(told, one)
    return told


def _second_on(one: Finding, known: set[Hit], hits: frozenset[Hit]) -> Finding:
    """Return a finding of ours with what the second engine says of its records."""
    asked = [record for record in one.sources if (one.component, record) in known]
    if not asked:
        return one
    missed = [record for record in asked if (one.component, record) not in hits]
    finders = one.found_by if len(missed) == len(asked) else _sorted(one.found_by, SECOND)
    said = [f"affected: {record}: fleetwright says so, {SECOND} does not" for record in missed]
    return replace(one, found_by=finders, disagreements=(*one.disagreements, *said))


def _with(findings: list[Finding], one: Told) -> list[Finding]:
    """Return the findings with what the second engine alone found."""
    purl, ids = one.component.purl, one.record.ids
    said = f"affected: {one.record.id}: {SECOND} says so, fleetwright does not"
    for place, found in enumerate(findings):
        if found.component == purl and ids & {found.vulnerability, *found.aliases}:
            findings[place] = replace(
                found,
                found_by=_sorted(found.found_by, SECOND),
                disagreements=(*found.disagreements, said),
            )
            return findings
    rated = one.rated()
    names = sorted(ids)
    new = Finding(
        vulnerability=leading([one.record.id, *names]),
        aliases=tuple(names),
        component=purl,
        severity=rated.severity,
        severity_source=rated.source,
        score=rated.score,
        matched=f"{one.record.id}: by {SECOND} alone",
        fixed="",
        found_by=(SECOND,),
        certain=False,
        sources=(one.record.id,),
        disagreements=(said,),
    )
    return [*findings, new]


def _sorted(names: Iterable[str], more: str) -> tuple[str, ...]:
    return tuple(sorted({*names, more}))
