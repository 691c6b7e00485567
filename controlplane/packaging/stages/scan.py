"""Stage SCAN: the vulnerabilities that are known of the package's components, attested.

Advisories that are missing, empty, damaged, stale or rolled back fail the stage. A component whose ecosystem
no import covers is named: "not covered" is not "clean".
"""

from __future__ import annotations

from controlplane.packaging.blobs import Blobs
from controlplane.packaging.forms import findings_to_json
from controlplane.packaging.judging import Judging, JudgingFailed, Scan, Subject
from controlplane.packaging.policy.facts import counts
from controlplane.packaging.records import Component, Scope
from controlplane.packaging.rules import Stage
from controlplane.packaging.sbom.tools import NOT_RUN
from controlplane.packaging.stages.evidence import (
    attestations_before,
    components_of,
    evidence_of,
    found_by,
    kept,
    subject_of,
)
from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.store.pipelines import Counts
from controlplane.packaging.trivy.comparing import SECOND

NO_SECOND_ENGINE = f"{NOT_RUN}no second engine is set up"


def scan(blobs: Blobs, judging: Judging) -> StageRun:
    """Make the stage."""

    async def run(job: Job) -> StageDone:
        components = await components_of(job, blobs)
        subject = subject_of(job, components, await evidence_of(job, blobs, judging))
        found = await scanned(job, judging, subject, components)
        return await _done(job, blobs, found)

    return run


async def scanned(job: Job, judging: Judging, subject: Subject, components: list[Component]) -> Scan:
    """Scan and say what came of it. Raises ``StageFailed``."""
    left_out = sum(one.scope is Scope.DEVELOPMENT for one in components)
    if left_out:
        job.say("info", f"{left_out} components only for development are listed and not scanned")
    try:
        found = await judging.scan(subject, components)
    except JudgingFailed as failed:
        raise StageFailed(failed.code, failed.message) from None
    facts = found.facts
    by_version = ", ".join(f"{name} import {facts.imports[name]}" for name in sorted(facts.imports)) or "none"
    job.say("info", f"{facts.covered} of {facts.components} components covered, by advisories: {by_version}")
    if facts.engines.get(SECOND, NOT_RUN).startswith(NOT_RUN):
        job.say("info", f"{SECOND}: {facts.engines.get(SECOND, NO_SECOND_ENGINE)}")
    for one in found.findings:
        for said in one.disagreements:
            job.say("info", f"engines or records disagree on {one.vulnerability} in {one.component}: {said}")
    if facts.not_covered:
        job.say("warning", f"not covered, which is not clean: {', '.join(facts.not_covered)}")
    return found


async def outcome_of(job: Job, blobs: Blobs, found: Scan) -> dict[str, object]:
    """Keep what a scan found, and return what later stages need of it."""
    if found.attested is None:
        raise StageFailed("INTERNAL", "a scan without its attestation; a defect of the server")
    return {
        "findings": await kept(blobs, findings_to_json(found.findings), job.folder / "findings.json"),
        "imports": dict(found.facts.imports),
        "not_covered": list(found.facts.not_covered),
        "scan": found.facts.to_json(),
        "attestations": {"scan": await kept(blobs, found.attested.envelope, job.folder / "scan.json")},
    }


def counts_of(found: Scan) -> Counts:
    """Return how many findings in force there are, by severity."""
    known = counts(found.findings)
    return known["critical"], known["high"], known["medium"], known["low"], known["unknown"]


async def _done(job: Job, blobs: Blobs, found: Scan) -> StageDone:
    outcome = await outcome_of(job, blobs, found)
    number = counts_of(found)
    names = ("critical", "high", "medium", "low", "unknown")
    said = ", ".join(f"{count} {name}" for count, name in zip(number, names, strict=True))
    job.say("info", f"{len(found.findings)} findings; in force: {said}")
    return StageDone(
        outcome,
        tools={SECOND: NO_SECOND_ENGINE, **found.facts.engines},
        inputs={"components": found_by(job, Stage.SBOM, "components"), **attestations_before(job)},
        outputs={"findings": str(outcome["findings"]), "scan": found.facts.attestation},
        counts=number,
    )
