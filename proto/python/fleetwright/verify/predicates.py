"""What is read of provenance, of a bill of materials and of a scan.

The scan's predicate is our own, because in-toto's has no place for what was not covered and for the
advisories' digest, without which a scan that found nothing says nothing:

    {"scanner": {"id", "version", "engines": [{"name", "version"}]},
     "advisories": {"digest": {"sha256"}, "importedOn"},
     "sbom": {"digest": {"sha256"}},                        the envelope of the SBOM that was scanned
     "scannedOn": "...",
     "coverage": {"components", "covered", "notCovered": ["ecosystem"]},
     "counts": {"critical", "high", "medium", "low", "unknown"},   of findings whose state is "affected"
     "findings": [{"vulnerability", "component", "severity", "state", "aliases", "foundBy", "score",
                   "severitySource", "matched", "fixed", "justification"}]}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fleetwright.verify.documents import JsonObject

SEVERITIES: Final = ("critical", "high", "medium", "low", "unknown")
AFFECTED: Final = "affected"

MOST_MATERIALS: Final = 10_000
MOST_COMPONENTS: Final = 1_000_000
MOST_FINDINGS: Final = 100_000
MOST_NAMES: Final = 1_000
"""Of engines, ecosystems, aliases of one finding."""


@dataclass(frozen=True, slots=True)
class Material:
    """What went into a build."""

    name: str
    uri: str
    sha256: str
    """Empty where it was named without one."""
    git_commit: str = ""
    """Of a source repository, as somebody declared it; empty for anything else."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a package was built: SLSA provenance v1."""

    build_type: str
    builder: str
    invocation: str
    started: datetime
    finished: datetime
    materials: tuple[Material, ...]


@dataclass(frozen=True, slots=True)
class Sbom:
    """A bill of materials: its format and how much is in it. The whole document is the predicate."""

    format: str
    """"CycloneDX" or "SPDX"."""
    version: str
    components: int


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """A vulnerability that was found in a component."""

    vulnerability: str
    component: str
    """purl."""
    severity: str
    """One of ``SEVERITIES``."""
    state: str
    """"affected", or what a VEX statement says of it."""
    aliases: tuple[str, ...] = ()
    found_by: tuple[str, ...] = ()
    score: float | None = None
    severity_source: str = ""
    matched: str = ""
    fixed: str = ""
    justification: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found, by which advisories, and what it could not judge."""

    scanner: str
    scanner_version: str
    engines: Mapping[str, str]
    """Name to version."""
    advisories: str
    """SHA-256 of the advisories that were matched."""
    imported: datetime
    sbom: str
    """SHA-256 of the envelope of the SBOM that was scanned."""
    scanned: datetime
    components: int
    covered: int
    not_covered: tuple[str, ...]
    """Ecosystems without advisories; what is in them is not clean but unknown."""
    findings: tuple[ScanFinding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings of each severity affect the package."""
        found = Counter(finding.severity for finding in self.findings if finding.state == AFFECTED)
        return {severity: found[severity] for severity in SEVERITIES}


def read_provenance(predicate: JsonObject) -> Provenance:
    """Read a predicate. Raises ``Malformed``."""
    definition, run = predicate.child("buildDefinition"), predicate.child("runDetails")
    metadata = run.child("metadata")
    return Provenance(
        build_type=definition.text("buildType"),
        builder=run.child("builder").text("id"),
        invocation=metadata.text("invocationId"),
        started=metadata.instant("startedOn"),
        finished=metadata.instant("finishedOn"),
        materials=tuple(
            _material(item) for item in definition.children("resolvedDependencies", MOST_MATERIALS)
        ),
    )


def _material(item: JsonObject) -> Material:
    digest = item.child("digest") if "digest" in item else None
    sha256 = digest.hexadecimal("sha256") if digest is not None and "sha256" in digest else ""
    commit = digest.text("gitCommit", longest=64, default="") if digest is not None else ""
    return Material(item.text("name", default=""), item.text("uri", default=""), sha256, commit)


def read_sbom(predicate: JsonObject, *, cyclonedx: bool) -> Sbom:
    """Read a predicate that is a bill of materials. Raises ``Malformed``."""
    if cyclonedx:
        name = predicate.text("bomFormat")
        if name != "CycloneDX":
            raise predicate.wrong("bomFormat", f"{name!r}, where 'CycloneDX' is expected")
        version, listed = predicate.text("specVersion"), predicate.children("components", MOST_COMPONENTS)
        return Sbom(name, version, len(listed))
    version = predicate.text("spdxVersion")
    if not version.startswith("SPDX-2."):
        raise predicate.wrong("spdxVersion", f"{version!r}, where 'SPDX-2.3' is expected")
    packages = predicate.children("packages", MOST_COMPONENTS)
    # One of the packages is the artefact that the document describes.
    return Sbom("SPDX", version.removeprefix("SPDX-"), max(0, len(packages) - 1))


def read_scan(predicate: JsonObject) -> Scan:
    """Read a predicate. Raises ``Malformed``, also where the counts are not those of the findings."""
    scanner, advisories = predicate.child("scanner"), predicate.child("advisories")
    coverage = predicate.child("coverage")
    scan = Scan(
        scanner=scanner.text("id"),
        scanner_version=scanner.text("version"),
        engines={item.text("name"): item.text("version") for item in scanner.children("engines", MOST_NAMES)},
        advisories=advisories.sha256("digest"),
        imported=advisories.instant("importedOn"),
        sbom=predicate.child("sbom").sha256("digest"),
        scanned=predicate.instant("scannedOn"),
        components=coverage.integer("components"),
        covered=coverage.integer("covered"),
        not_covered=tuple(coverage.texts("notCovered", MOST_NAMES)),
        findings=tuple(_finding(item) for item in predicate.children("findings", MOST_FINDINGS)),
    )
    if scan.covered > scan.components:
        raise coverage.wrong("covered", f"{scan.covered}, where there are {scan.components} components")
    _check_counts(predicate.child("counts"), scan.counts)
    return scan


def _check_counts(stated: JsonObject, counted: Mapping[str, int]) -> None:
    for severity, number in counted.items():
        if stated.integer(severity) != number:
            raise stated.wrong(severity, f"{stated.integer(severity)}, where {number} such are listed")


def _finding(item: JsonObject) -> ScanFinding:
    severity = item.text("severity", longest=32)
    if severity not in SEVERITIES:
        raise item.wrong("severity", f"{severity!r} is none of {', '.join(SEVERITIES)}")
    return ScanFinding(
        vulnerability=item.text("vulnerability"),
        component=item.text("component"),
        severity=severity,
        state=item.text("state"),
        aliases=tuple(item.texts("aliases", MOST_NAMES)),
        found_by=tuple(item.texts("foundBy", MOST_NAMES)),
        score=_score(item),
        severity_source=item.text("severitySource", default=""),
        matched=item.text("matched", default=""),
        fixed=item.text("fixed", default=""),
        justification=item.text("justification", default=""),
    )


def _score(item: JsonObject) -> float | None:
    score: Any = item.value.get("score")
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 10:
        raise item.wrong("score", f"{score!r}, where a number from 0 to 10 is expected")
    return float(score)
