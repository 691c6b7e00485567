"""What the rules of a policy can ask about: the input of an evaluation, its shape, and how it is made.

The shape is a contract with whoever writes policies: fields may be added, none changes its meaning. Rules
about findings see one of them as ``finding``; all see the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controlplane.packaging.records import ArtefactFacts, Finding, Severity

SETTLED: Final = frozenset({"not_affected", "fixed"})
"""States of OpenVEX by which a finding is not in force; any other word leaves it in force."""

TEXT: Final = "text"
NUMBER: Final = "number"
TRUTH: Final = "truth"

_FINDING: Final[Mapping[str, Any]] = {
    "vulnerability": TEXT,
    "aliases": [TEXT],
    "component": TEXT,
    "severity": TEXT,
    "severity_source": TEXT,
    "score": NUMBER,
    "scored": TRUTH,
    "matched": TEXT,
    "fixed": TEXT,
    "found_by": [TEXT],
    "state": TEXT,
    "justification": TEXT,
    "in_force": TRUTH,
}
SHAPE: Final[Mapping[str, Any]] = {
    "package": {
        "name": TEXT,
        "version": TEXT,
        "type": TEXT,
        "architecture": TEXT,
        "os_family": TEXT,
        "sha256": TEXT,
    },
    "counts": {severity.value: NUMBER for severity in Severity},
    "findings": [_FINDING],
    "coverage": {"files": NUMBER, "claimed": NUMBER, "components": NUMBER, "uncovered": [TEXT]},
    "advisories": {"version": TEXT, "age_seconds": NUMBER},
    "provenance": {
        "builder": TEXT,
        "build_id": TEXT,
        "source_repository": TEXT,
        "source_commit": TEXT,
        "signature": TEXT,
    },
}
"""A text names a kind of value, a list has one kind of entry, a mapping has these fields and no others."""
FINDING_SHAPE: Final[Mapping[str, Any]] = {**SHAPE, "finding": _FINDING}
"""What a rule about findings sees."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a package is known."""

    files: int
    claimed: int
    """Of the files, by a component."""
    components: int
    uncovered: Sequence[str] = ()
    """Ecosystems of components that no advisory data is there for. "Not covered" is not "clean"."""


@dataclass(frozen=True, slots=True)
class AdvisoryFacts:
    """Which advisories the scan knew; too old ones failed it before any policy was asked."""

    version: str
    age_seconds: int


@dataclass(frozen=True, slots=True)
class ProvenanceFacts:
    """Where a package comes from, as its provenance says; empty texts where nothing was said."""

    builder: str
    build_id: str
    source_repository: str = ""
    source_commit: str = ""
    signature: str = ""
    """State of the format's own signature: "SIGNED_VERIFIED", "NOT_APPLICABLE" and so on."""


def in_force(finding: Finding) -> bool:
    """Whether a finding counts: no statement says that it does not affect this package."""
    return finding.state not in SETTLED


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings in force there are of each severity."""
    found = {severity.value: 0 for severity in Severity}
    for finding in findings:
        if in_force(finding):
            found[finding.severity.value] += 1
    return found


def policy_input(
    facts: ArtefactFacts,
    sha256: str,
    findings: Sequence[Finding],
    coverage: Coverage,
    advisories: AdvisoryFacts,
    provenance: ProvenanceFacts,
) -> dict[str, Any]:
    """Return the input of an evaluation, as JSON of the form ``SHAPE``; ``sha256`` is of the final bytes."""
    return {
        "package": {
            "name": facts.name,
            "version": facts.version,
            "type": facts.type.value,
            "architecture": facts.architecture,
            "os_family": facts.os_family,
            "sha256": sha256,
        },
        "counts": counts(findings),
        "findings": [_finding(one) for one in findings],
        "coverage": {
            "files": coverage.files,
            "claimed": coverage.claimed,
            "components": coverage.components,
            "uncovered": sorted(coverage.uncovered),
        },
        "advisories": {"version": advisories.version, "age_seconds": advisories.age_seconds},
        "provenance": {
            "builder": provenance.builder,
            "build_id": provenance.build_id,
            "source_repository": provenance.source_repository,
            "source_commit": provenance.source_commit,
            "signature": provenance.signature,
        },
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "vulnerability": finding.vulnerability,
        "aliases": sorted(finding.aliases),
        "component": finding.component,
        "severity": finding.severity.value,
        "severity_source": finding.severity_source,
        # Null where nobody has given one: a rule that compares it without looking errs, and does not pass.
        "score": finding.score,
        "scored": finding.score is not None,
        "matched": finding.matched,
        "fixed": finding.fixed,
        "found_by": sorted(finding.found_by),
        "state": finding.state,
        "justification": finding.justification,
        "in_force": in_force(finding),
    }
