"""Shapes: an OSV record, and what a scan says. Instants are microseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.packaging.records import Finding, Severity

EVENTS = ("introduced", "fixed", "last_affected", "limit")
"""Kinds of events of a range, in the order in which they are read from one object."""


class Event(NamedTuple):
    """Where a range begins or ends: one of ``EVENTS``, and the version."""

    kind: str
    version: str


class Range(NamedTuple):
    """Events in the record's order. ``type`` is OSV's; only those of SEMVER and ECOSYSTEM are kept."""

    type: str
    events: Sequence[Event]


class Rating(NamedTuple):
    """A severity as a record gives it: OSV's type ("CVSS_V3") and the vector."""

    type: str
    score: str


class Affected(NamedTuple):
    """What a record says of one package. A package may have several of these in one record.

    A tuple, since a scan makes them by the ten thousand.
    """

    ecosystem: str
    """As the record writes it, with a release ("AlmaLinux:8"); empty where it names no package."""
    name: str
    purl: str = ""
    ranges: Sequence[Range] = ()
    versions: Sequence[str] = ()
    ratings: Sequence[Rating] = ()
    word: str = ""
    """The database's own word for the severity, as it stands there."""


@dataclass(frozen=True, slots=True)
class Record:
    """One OSV record."""

    id: str
    modified: int
    published: int | None = None
    withdrawn: int | None = None
    aliases: Sequence[str] = ()
    related: Sequence[str] = ()
    upstream: Sequence[str] = ()
    ratings: Sequence[Rating] = ()
    word: str = ""
    affected: Sequence[Affected] = ()
    notes: Sequence[str] = ()
    """What was skipped, in words."""

    @property
    def ids(self) -> frozenset[str]:
        """Every name of the vulnerability that the record knows."""
        return frozenset((self.id, *self.aliases))


class Rated(NamedTuple):
    """A severity with where it comes from, and the score where there is a vector."""

    severity: Severity
    source: str
    score: float | None


UNRATED = Rated(Severity.UNKNOWN, "", None)


class Row(NamedTuple):
    """What a record says of one package, as it is kept for matching."""

    ecosystem: str
    """As the record writes it."""
    name: str
    """Normalised."""
    advisory: str
    """Id of the record."""
    blocks: Sequence[Affected]


@dataclass(frozen=True, slots=True)
class Standing:
    """The import of one ecosystem that is in force."""

    ecosystem: str
    """Without a release."""
    version: int
    digest: str
    """SHA-256 over ids and digests of its records."""
    records: int
    newest_modified: int
    """The newest instant that its records carry: how far it knows."""
    import_time: int
    releases: Mapping[str, int] = field(default_factory=dict)
    """Ecosystems with their releases, and how many entries of packages it has for each."""
    entries: int = 0
    """Entries of packages, as counted when it was imported."""
    withdrawn: int = 0
    newest_ever: int = 0
    """The newest instant of its imports that were in force since the last accepted rollback."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a scan could look at."""

    covered: Mapping[str, Standing]
    """By ecosystem of components, with release: the import that knows it."""
    not_covered: Mapping[str, int]
    """Ecosystems that no import knows, and how many components are of each; "" for those of none."""
    ages: Mapping[str, int]
    """Microseconds from the newest instant of an import to the scan, by base ecosystem."""
    in_force: Sequence[Standing] = ()
    """Every import that the scan could have used, by ecosystem."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """Findings, by component and id, and what they are worth."""

    findings: Sequence[Finding]
    coverage: Coverage
    notes: Sequence[str] = ()
