"""Stage POLICY: the verdict, with its rules and exceptions, signed; and the package in the store, whole.

A package that policy refuses is stored too, for its evidence. Where advisories were imported since the scan,
it is scanned anew first: a verdict speaks of what is known when it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controlplane.clock import Clock, to_micros
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.forms import FormError, findings_from_json
from controlplane.packaging.judging import Concluded, Judging, JudgingFailed, Scan, Subject
from controlplane.packaging.judging.subjects import scan_facts_of
from controlplane.packaging.records import Component
from controlplane.packaging.rescanning import Releases
from controlplane.packaging.rules import Decision, Stage
from controlplane.packaging.sbom.tools import own_version
from controlplane.packaging.stages.evidence import (
    attestations_before,
    components_of,
    evidence_of,
    fetched,
    found_by,
    kept,
    package_of,
    subject_of,
)
from controlplane.packaging.stages.scan import counts_of, outcome_of, scanned
from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.store.decisions import Attested
from controlplane.packaging.store.packages import PackageRecord


def policy(blobs: Blobs, judging: Judging, releases: Releases, clock: Clock) -> StageRun:
    """Make the stage."""
    return _Policy(blobs, judging, releases, clock)


@dataclass(frozen=True, slots=True)
class _Policy:
    blobs: Blobs
    judging: Judging
    releases: Releases
    clock: Clock

    async def __call__(self, job: Job) -> StageDone:
        components = await components_of(job, self.blobs)
        evidence = await evidence_of(job, self.blobs, self.judging)
        subject = subject_of(job, components, evidence)
        scan, newer = await self._scan(job, subject, components)
        package = self._record(job, subject, components)
        try:
            concluded = await self.judging.take_in(package, subject, components, evidence, scan)
        except JudgingFailed as failed:
            raise StageFailed(failed.code, failed.message) from None
        if concluded.before.releases and not concluded.package.decision.releases:
            # The same bytes had passed before, and agents may have them on offer.
            await self.releases.withdraw(subject.sha256, "; ".join(concluded.package.decision_reasons))
        return await self._done(job, concluded, scan, newer)

    async def _scan(
        self, job: Job, subject: Subject, components: list[Component]
    ) -> tuple[Scan, dict[str, Any]]:
        """Return the scan to judge by, and the outcome of it where it is a newer one than the stage's."""
        try:
            facts = scan_facts_of(found_by(job, Stage.SCAN, "scan"))
        except JudgingFailed as failed:
            raise StageFailed(failed.code, failed.message) from None
        if facts.known != await self.judging.known():
            job.say("info", "advisories were imported since the scan: scanning anew")
            scan = await scanned(job, self.judging, subject, components)
            return scan, await outcome_of(job, self.blobs, scan)
        try:
            findings = findings_from_json(
                await fetched(self.blobs, found_by(job, Stage.SCAN, "findings"), job.folder / "findings.json")
            )
            envelope = await fetched(self.blobs, facts.attestation, job.folder / "scan.json")
            attested = self.judging.evidence("scan", envelope, subject.sha256)
        except FormError as error:
            raise StageFailed("OUTCOME_BROKEN", str(error)) from None
        except JudgingFailed as failed:
            raise StageFailed(failed.code, failed.message) from None
        return Scan(facts, findings, attested), {}

    def _record(self, job: Job, subject: Subject, components: list[Component]) -> PackageRecord:
        now = to_micros(self.clock.now())
        pipeline = job.pipeline
        return PackageRecord(
            sha256=subject.sha256,
            package_name=pipeline.package_name or subject.facts.name,
            version=pipeline.package_version or subject.facts.version,
            artefact_type=pipeline.artefact_type or subject.facts.type.value,
            target_platform=pipeline.target_platform,
            size=int(package_of(job)["size"]),
            pipeline_id=pipeline.pipeline_id,
            decision=Decision.UNJUDGED,
            decision_time=now,
            decision_reasons=(),
            counts=None,
            component_count=len(components),
            file_count=subject.files,
            claimed_file_count=subject.claimed,
            create_time=now,
            purl=subject.purl,
        )

    async def _done(self, job: Job, concluded: Concluded, scan: Scan, newer: dict[str, Any]) -> StageDone:
        verdict = _required(concluded.verdict)
        package = concluded.package
        digest = await kept(self.blobs, verdict.envelope, job.folder / "verdict.json")
        job.say("info", f"{package.decision.name} by policy {self.judging.policy[:16]}")
        for reason in package.decision_reasons:
            job.say("warning", reason)
        return StageDone(
            {
                **{name: found for name, found in newer.items() if name != "attestations"},
                "decision": package.decision.name,
                "reasons": list(package.decision_reasons),
                "attestations": {**newer.get("attestations", {}), "verdict": digest},
            },
            tools={"fleetwright": own_version()},
            inputs={
                **attestations_before(job),
                "scan": scan.facts.attestation,
                "policy": self.judging.policy,
            },
            outputs={"verdict": digest},
            counts=counts_of(scan),
            decision=package.decision,
        )


def _required(verdict: Attested | None) -> Attested:
    if verdict is None:
        raise StageFailed("VERDICT_MISSING", "the package has no verdict; retry the pipeline")
    return verdict
