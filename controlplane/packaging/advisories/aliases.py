"""One finding for each vulnerability and component, whatever number of records speak of it.

Records are of one vulnerability when one names the other, or both name a third, as an alias. ``related`` and
``upstream`` are no aliases: an advisory of a distribution is related to several CVEs. Nothing is lost in the
merge: every record that matched stays a source, and where they disagree the finding says how.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from controlplane.packaging.advisories.matching import Outcome, Verdict
from controlplane.packaging.advisories.records import UNRATED, Rated, Record
from controlplane.packaging.advisories.versions import UnknownEcosystemError, VersionError, key
from controlplane.packaging.records import Component, Finding, Severity

FOUND_BY = "fleetwright"
"""This engine. A second one over the same advisories adds its name to the findings that it has too."""

BETWEEN_ENGINES = "engines: "
"""How a disagreement begins that is between engines, not between records."""

_CVE = re.compile(r"CVE-(\d{4})-(\d{4,19})")
_WORST_FIRST = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.UNKNOWN)


class Hit(NamedTuple):
    """A record that affects a component, or may; or one of the same vulnerability that does not."""

    record: Record
    verdict: Verdict
    rated: Rated = UNRATED
    own: bool = True
    """Whether this engine says so; else another one alone does."""
    other: bool | None = None
    """Whether another engine says "affected", None where it did not judge."""


class Groups:
    """Ids that name the same vulnerability (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def join(self, ids: Sequence[str]) -> None:
        """Let ids be of one group."""
        for other in ids:
            self._parents[self.of(other)] = self.of(ids[0])

    def of(self, identifier: str) -> str:
        """Return the id that stands for the group of this one."""
        parents = self._parents
        parents.setdefault(identifier, identifier)
        while parents[identifier] != identifier:
            parents[identifier] = parents[parents[identifier]]
            identifier = parents[identifier]
        return identifier


def merge(
    component: Component, hits: Sequence[Hit], others: Sequence[Hit] = (), engine: str = ""
) -> list[Finding]:
    """Return one finding for each vulnerability of a component, by their ids.

    ``others`` are hits of the same vulnerabilities that say "not affected" of this component: they make no
    finding, and are told of as a disagreement. ``engine`` is the other engine, where one was asked.
    """
    if len(hits) == 1 and not others:
        return [_finding(component, hits, (), engine)]
    groups = Groups()
    for hit in (*hits, *others):
        if hit.record.aliases:
            groups.join([hit.record.id, *hit.record.aliases])
    grouped: dict[str, list[Hit]] = {}
    for hit in sorted(hits, key=lambda hit: hit.record.id):
        grouped.setdefault(groups.of(hit.record.id), []).append(hit)
    against: dict[str, list[Hit]] = {}
    for hit in sorted(others, key=lambda hit: hit.record.id):
        against.setdefault(groups.of(hit.record.id), []).append(hit)
    found = [_finding(component, same, against.get(group, []), engine) for group, same in grouped.items()]
    return sorted(found, key=lambda finding: finding.vulnerability)


def leading(ids: Sequence[str]) -> str:
    """Return the id that leads: the oldest CVE, else the first by name that is a record's own."""
    numbered = [
        (int(found[1]), int(found[2]), one)
        for one in ids
        if one.startswith("CVE-") and (found := _CVE.fullmatch(one))
    ]
    return min(numbered)[2] if numbered else ids[0]


def _finding(component: Component, hits: Sequence[Hit], against: Sequence[Hit], engine: str) -> Finding:
    own = [hit.record.id for hit in hits]
    ids = sorted({one for hit in (*hits, *against) for one in hit.record.ids})
    sure = [hit for hit in hits if hit.verdict.outcome is Outcome.AFFECTED]
    rated = hits[0].rated if len(hits) == 1 else _worst([hit.rated for hit in hits])
    fixes = {hit.record.id: hit.verdict.fixed for hit in sure or hits}
    return Finding(
        vulnerability=leading([*own, *ids]),
        aliases=tuple(ids),
        component=component.purl,
        severity=rated.severity,
        severity_source=rated.source,
        score=rated.score,
        matched="; ".join(f"{hit.record.id}: {hit.verdict.words}{_also(hit, engine)}" for hit in hits),
        fixed=_highest(component.ecosystem, list(fixes.values())),
        found_by=_found_by(hits, engine),
        certain=bool(sure),
        sources=tuple(own),
        disagreements=(
            *(_between(hits, engine) if engine else ()),
            *(_disagreements(hits, against, fixes) if len(hits) + len(against) > 1 else ()),
        ),
    )


def _found_by(hits: Sequence[Hit], engine: str) -> tuple[str, ...]:
    own = (FOUND_BY,) if any(hit.own for hit in hits) else ()
    return (*own, engine) if engine and any(hit.other for hit in hits) else own


def _also(hit: Hit, engine: str) -> str:
    """Return what another engine says to a record, where it says something else."""
    if hit.other is None or (hit.other and hit.own and hit.verdict.outcome is Outcome.AFFECTED):
        return ""
    return f" ({engine}: {'affected' if hit.other else 'not affected'})"


def _between(hits: Sequence[Hit], engine: str) -> list[str]:
    said = (f"{hit.record.id}{_also(hit, engine)}" for hit in hits if _also(hit, engine))
    own = {hit.record.id: hit.verdict.outcome.value if hit.own else "not affected" for hit in hits}
    return [f"{BETWEEN_ENGINES}{one}, {FOUND_BY}: {own[one.partition(' ')[0]]}" for one in said]


def _worst(rated: Sequence[Rated]) -> Rated:
    """Return the worst severity; of equal ones that with a score, and the higher one."""
    return min(rated, key=lambda one: (_WORST_FIRST.index(one.severity), -(one.score or 0.0), one.source))


def _highest(ecosystem: str, fixes: Sequence[str]) -> str:
    """Return the version that is fixed by every record that knows a fix."""
    known = [fix for fix in fixes if fix]
    if len(known) < 2:
        return known[0] if known else ""
    try:
        return max(known, key=lambda fix: key(ecosystem, fix))
    except (VersionError, UnknownEcosystemError):
        return max(known)


def _disagreements(hits: Sequence[Hit], against: Sequence[Hit], fixes: Mapping[str, str]) -> list[str]:
    said: list[str] = []
    if len(set(fixes.values())) > 1:
        said.append("fixed: " + _each({one: fix or "none known" for one, fix in fixes.items()}))
    severities = {hit.record.id: hit.rated for hit in hits if hit.rated != UNRATED}
    if len({rated.severity for rated in severities.values()}) > 1:
        said.append("severity: " + _each({one: rated.severity.value for one, rated in severities.items()}))
    outcomes = {hit.record.id: hit.verdict.outcome.value for hit in (*hits, *against)}
    if len(set(outcomes.values())) > 1:
        said.append("affected: " + _each(outcomes))
    return said


def _each(said: Mapping[str, str]) -> str:
    return ", ".join(f"{identifier} says {what}" for identifier, what in sorted(said.items()))
