"""Writing in-toto statements: provenance, bill of materials, scan, verdict.

The shapes are those that ``fleetwright.verify`` reads, and every payload is read back before it is returned:
what the agents would refuse is an error here. The same values give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetwright.verify.documents import canonical, instant_text
from fleetwright.verify.predicates import Material, Provenance, Scan, ScanFinding
from fleetwright.verify.statements import (
    CYCLONEDX,
    PROVENANCE,
    SCAN,
    SPDX,
    STATEMENT_TYPE,
    VERDICT,
    Subject,
    parse_statement,
)
from fleetwright.verify.verdicts import LEVELS, RESULTS, Verdict

Json = Mapping[str, Any]

SLSA_VERSION = "1.0"
"""Of the specification by which a verification summary is written."""


def provenance(
    subjects: Sequence[Subject],
    built: Provenance,
    *,
    external: Json,
    internal: Json | None = None,
    byproducts: Sequence[Json] = (),
    builder_version: Mapping[str, str] | None = None,
) -> bytes:
    """Return SLSA provenance v1. ``external`` are the parameters that who asked for the build could choose.

    Raises ``Malformed`` for what no verifier would take.
    """
    predicate = provenance_predicate(
        built, external=external, internal=internal, byproducts=byproducts, builder_version=builder_version
    )
    return statement(subjects, PROVENANCE, predicate)


def provenance_predicate(
    built: Provenance,
    *,
    external: Json,
    internal: Json | None = None,
    byproducts: Sequence[Json] = (),
    builder_version: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the predicate alone, for whoever builds before the digests of the subjects are known.

    ``statement(subjects, PROVENANCE, predicate)`` makes the same of it as ``provenance``.
    """
    builder: dict[str, Any] = {"id": built.builder}
    if builder_version:
        builder["version"] = dict(builder_version)
    return {
        "buildDefinition": {
            "buildType": built.build_type,
            "externalParameters": dict(external),
            "internalParameters": dict(internal or {}),
            "resolvedDependencies": [_material(material) for material in built.materials],
        },
        "runDetails": {
            "builder": builder,
            "metadata": {
                "invocationId": built.invocation,
                "startedOn": instant_text(built.started),
                "finishedOn": instant_text(built.finished),
            },
            "byproducts": list(byproducts),
        },
    }


def cyclonedx(subjects: Sequence[Subject], bom: Json) -> bytes:
    """Return the statement that a CycloneDX document lists what is in the subjects. Raises ``Malformed``."""
    return statement(subjects, CYCLONEDX, bom)


def spdx(subjects: Sequence[Subject], document: Json) -> bytes:
    """Return the statement that an SPDX 2.3 document lists what is in the subjects. Raises ``Malformed``."""
    return statement(subjects, SPDX, document)


def scan(subjects: Sequence[Subject], found: Scan) -> bytes:
    """Return what a scan found. Raises ``Malformed`` for what no verifier would take."""
    predicate = {
        "scanner": {
            "id": found.scanner,
            "version": found.scanner_version,
            "engines": [{"name": name, "version": found.engines[name]} for name in sorted(found.engines)],
        },
        "advisories": {"digest": {"sha256": found.advisories}, "importedOn": instant_text(found.imported)},
        "sbom": {"digest": {"sha256": found.sbom}},
        "scannedOn": instant_text(found.scanned),
        "coverage": {
            "components": found.components,
            "covered": found.covered,
            "notCovered": list(found.not_covered),
        },
        "counts": found.counts,
        "findings": [_finding(finding) for finding in found.findings],
    }
    return statement(subjects, SCAN, predicate)


def verdict(subjects: Sequence[Subject], made: Verdict, trace: Json | None = None) -> bytes:
    """Return a verification summary, SLSA's VSA v1. ``trace`` is how it came about, for whoever audits it.

    Raises ``Malformed`` for what no verifier would take.
    """
    predicate: dict[str, Any] = {
        "verifier": {"id": made.verifier, "version": {"fleetwright": made.verifier_version}},
        "timeVerified": instant_text(made.verified),
        "resourceUri": made.resource,
        "policy": {"uri": made.policy, "digest": {"sha256": made.policy_sha256}},
        "inputAttestations": [{"digest": {"sha256": digest}} for digest in made.inputs],
        "verificationResult": RESULTS[made.decision],
        "verifiedLevels": list(LEVELS[made.decision]),
        "slsaVersion": SLSA_VERSION,
        "fleetwright_decision": made.decision.value,
        "fleetwright_expires": instant_text(made.expires),
        "fleetwright_rules": [
            {"rule": rule.rule, "outcome": rule.outcome, "reason": rule.reason} for rule in made.rules
        ],
        "fleetwright_exceptions": [
            {
                "name": used.name,
                "vulnerability": used.vulnerability,
                "approver": used.approver,
                "expires": instant_text(used.expires),
            }
            for used in made.exceptions
        ],
    }
    if trace:
        predicate["fleetwright_trace"] = dict(trace)
    return statement(subjects, VERDICT, predicate)


def statement(subjects: Sequence[Subject], predicate_type: str, predicate: Json) -> bytes:
    """Return the payload of a statement. Raises ``Malformed`` for what no verifier would take."""
    payload = canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": subject.name, "digest": {"sha256": subject.sha256}} for subject in subjects],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        }
    )
    parse_statement(payload).read()
    return payload


def _material(material: Material) -> Json:
    described: dict[str, Any] = {"name": material.name, "uri": material.uri}
    digests = {"sha256": material.sha256, "gitCommit": material.git_commit}
    if known := {name: digest for name, digest in digests.items() if digest}:
        described["digest"] = known
    return described


def _finding(finding: ScanFinding) -> Json:
    described: dict[str, Any] = {
        "vulnerability": finding.vulnerability,
        "component": finding.component,
        "severity": finding.severity,
        "state": finding.state,
        "aliases": list(finding.aliases),
        "foundBy": list(finding.found_by),
        "severitySource": finding.severity_source,
        "matched": finding.matched,
        "fixed": finding.fixed,
        "justification": finding.justification,
    }
    if finding.score is not None:
        described["score"] = finding.score
    return described
