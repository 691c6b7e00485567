"""What is judged, by which terms, and what a scan says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from fleetwright.verify.documents import canonical

from controlplane.packaging.advisories.names import normalise
from controlplane.packaging.advisories.records import Standing
from controlplane.packaging.forms import FormError, facts_of, plain
from controlplane.packaging.policy.cel import CompiledPolicy
from controlplane.packaging.policy.facts import ProvenanceFacts
from controlplane.packaging.policy.verdict import Verifier
from controlplane.packaging.records import ArtefactFacts, Component, Finding, Scope
from controlplane.packaging.store.decisions import Attested


class JudgingFailed(Exception):
    """There is no decision: never a pass. ``code`` is a stable word, the text says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Terms:
    """By what packages are judged here."""

    policy: CompiledPolicy
    verifier: Verifier
    max_age: timedelta
    """How old the newest advisory of an ecosystem may be."""
    verdict_life: timedelta = timedelta(days=30)
    """How long a verdict holds at most; it is renewed in time."""
    required: frozenset[str] = frozenset()
    """Ecosystems whose advisories must be in force even if no component is of them."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A package: what does not change when more is known against it."""

    sha256: str
    file_name: str
    purl: str
    """Or another URI, where it has no name of its own."""
    facts: ArtefactFacts
    provenance: ProvenanceFacts
    files: int
    claimed: int
    """Of the files, by a component."""
    attestations: Mapping[str, str] = field(default_factory=dict)
    """Its evidence before the scan: by kind, the SHA-256 of the envelope."""
    vex: str = ""
    """The OpenVEX document that came with it, or empty."""

    @property
    def sbom(self) -> str:
        """The SHA-256 of the envelope of its bill of materials, the first where there are several.

        Raises ``JudgingFailed`` where there is none.
        """
        for kind in sorted(self.attestations):
            if kind.partition(".")[0] == "sbom":
                return self.attestations[kind]
        raise JudgingFailed("EVIDENCE_MISSING", "there is no attested bill of materials; run the stage again")

    def to_json(self) -> dict[str, Any]:
        """Return what is kept of it with the package; ``subject_of`` reads it back."""
        return {
            "file_name": self.file_name,
            "facts": plain(self.facts),
            "provenance": plain(self.provenance),
        }


def kept_facts(stored: Mapping[str, Any]) -> tuple[str, ArtefactFacts, ProvenanceFacts]:
    """Return what ``Subject.to_json`` kept. Raises ``JudgingFailed``."""
    try:
        return (
            str(stored["file_name"]),
            facts_of(stored["facts"]),
            ProvenanceFacts(**stored["provenance"]),
        )
    except (FormError, KeyError, TypeError) as error:
        raise JudgingFailed(
            "FACTS_UNREADABLE", f"what is kept of the package cannot be read ({error}); build it anew"
        ) from None


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """How a scan went: JSON, kept with the decision that stands on it. Instants are microseconds."""

    time: int
    known: str
    """Digest over the imports in force, see ``known_by``."""
    imports: Mapping[str, int]
    """Version of the import that was used, by ecosystem."""
    components: int
    covered: int
    not_covered: tuple[str, ...]
    age: int
    """Of the oldest advisories that were used, in microseconds."""
    usable_until: int
    """When those are too old."""
    attestation: str
    """SHA-256 of the envelope."""
    engines: Mapping[str, str] = field(default_factory=dict)
    """What looked, with its version; of what could not look, why."""

    def to_json(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        return plain(self)


def scan_facts_of(stored: Mapping[str, Any]) -> ScanFacts:
    """Return what ``ScanFacts.to_json`` wrote. Raises ``JudgingFailed``."""
    try:
        return ScanFacts(**{**stored, "not_covered": tuple(stored["not_covered"])})
    except (KeyError, TypeError) as error:
        raise JudgingFailed(
            "SCAN_UNREADABLE", f"what is kept of the scan cannot be read ({error}); scan anew"
        ) from None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found, the most severe first; ``attested`` is None for one that stands already."""

    facts: ScanFacts
    findings: Sequence[Finding]
    attested: Attested | None


def known_by(standings: Sequence[Standing]) -> str:
    """Return a digest that changes with every import: what was looked at by another one is looked at anew."""
    return hashlib.sha256(
        canonical({one.ecosystem: [one.version, one.digest] for one in standings})
    ).hexdigest()


def purl_of(facts: ArtefactFacts, components: Sequence[Component], sha256: str) -> str:
    """Return the URI by which a package is spoken of: the purl of the component that it is itself.

    Where it is none, a generic purl of its name; the name of its bytes (RFC 6920) where it has none.
    """
    own = facts.name.strip()
    for one in components:
        if one.scope is Scope.CONTAINED and one.version == facts.version and _is_named(one, own):
            return one.purl
    if not own:
        return f"nih:sha-256;{sha256}"
    version = f"@{quote(facts.version, safe='')}" if facts.version else ""
    return f"pkg:generic/{quote(own, safe='')}{version}"


def _is_named(one: Component, name: str) -> bool:
    names = {one.name, one.name.rpartition("/")[2], one.name.rpartition(":")[2]}
    return bool(name) and normalise(one.ecosystem, name) in {normalise(one.ecosystem, each) for each in names}
