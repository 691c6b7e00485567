"""Decisions on packages, committed: the first one by stage POLICY, each later one by judging again.

A decision is committed only by who has seen the one before and all that it stands on; else it is made anew.
While nobody can judge (no usable advisories, a policy that errs) a decision stands until its verdict ends,
and no longer: then the package is unjudged, which no agent may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from controlplane.clock import Clock, to_micros
from controlplane.packaging.forms import findings_to_json
from controlplane.packaging.judging.attesting import Attesting
from controlplane.packaging.judging.deciding import Decided, decide, renewal
from controlplane.packaging.judging.scanner import Scanner
from controlplane.packaging.judging.subjects import (
    JudgingFailed,
    Scan,
    Subject,
    Terms,
    kept_facts,
    scan_facts_of,
)
from controlplane.packaging.policy.rules import PolicyException
from controlplane.packaging.records import Component
from controlplane.packaging.rules import Decision
from controlplane.packaging.store import decisions, packages
from controlplane.packaging.store import exceptions as excepted
from controlplane.packaging.store.decisions import Attested, NewDecision
from controlplane.packaging.store.packages import FindingRecord, PackageRecord
from controlplane.storage.database import Database

ATTEMPTS = 10
"""Times that a decision is made anew because another one was faster."""
RETRY = 60 * 60 * 1_000_000
"""Microseconds until a package that nobody could judge is tried again, if no import comes before."""


@dataclass(frozen=True, slots=True)
class Concluded:
    """A decision as it stands after a call; ``before`` is the one that stood, UNJUDGED for none.

    ``fresh`` says that there is new evidence to release; ``problem`` why it could not be judged, if so.
    """

    package: PackageRecord
    before: Decision
    fresh: bool
    verdict: Attested | None = None
    problem: JudgingFailed | None = None


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is known of a package, as one snapshot has it."""

    package: PackageRecord
    subject: Subject
    findings: Sequence[FindingRecord]
    exceptions: Sequence[PolicyException]


class Judging:
    """Use cases around decisions."""

    def __init__(
        self, database: Database, clock: Clock, scanner: Scanner, attesting: Attesting, terms: Terms
    ) -> None:
        self._database = database
        self._clock = clock
        self._scanner = scanner
        self._attesting = attesting
        self._terms = terms

    @property
    def policy(self) -> str:
        """The digest of the policy that holds."""
        return self._terms.policy.policy.sha256

    async def known(self) -> str:
        """Return the digest of the advisories in force."""
        return await self._scanner.known()

    async def scan(self, subject: Subject, components: Sequence[Component]) -> Scan:
        """Scan a package, see ``Scanner.scan``. Raises ``JudgingFailed``."""
        return await self._scanner.scan(subject, components)

    def evidence(self, kind: str, envelope: bytes, package: str) -> Attested:
        """Return an envelope as evidence, see ``Attesting.checked``. Raises ``JudgingFailed``."""
        return self._attesting.checked(kind, envelope, package)

    # --- the first decision

    async def take_in(
        self,
        package: PackageRecord,
        subject: Subject,
        components: Sequence[Component],
        evidence: Sequence[Attested],
        scan: Scan,
    ) -> Concluded:
        """Decide on a package of a pipeline and commit it with all its evidence, in one transaction.

        ``package`` has what the pipeline knows of it; the same call again finds what the first one
        committed. Raises ``JudgingFailed``.
        """
        for _ in range(ATTEMPTS):
            now = to_micros(self._clock.now())
            standing, exceptions = await self._database.read(
                lambda connection: _before(connection, subject.sha256)
            )
            if standing is not None and self._is_same(standing, package, scan, now):
                return await self._as_it_stands(standing)
            decided = await self._decide(subject, scan, exceptions, now)
            new = self._new(package, subject, scan, decided, evidence)
            new = replace(new, components=components)
            if await self._write(new, None if standing is None else standing.judgement):
                before = Decision.UNJUDGED if standing is None else standing.decision
                return Concluded(new.package, before, fresh=True, verdict=new.attestations[-1])
        raise _busy(subject.sha256)

    def _is_same(self, standing: PackageRecord, package: PackageRecord, scan: Scan, now: int) -> bool:
        return (
            standing.pipeline_id == package.pipeline_id
            and standing.policy == self.policy
            and standing.due_time > now
            and standing.scan.get("attestation") == scan.facts.attestation
        )

    async def _as_it_stands(self, standing: PackageRecord) -> Concluded:
        async def question(connection: Any) -> Attested | None:
            known = (await packages.attestations(connection, [standing.sha256])).get(standing.sha256, {})
            envelope = await packages.envelope(connection, standing.sha256, "verdict")
            return None if envelope is None else Attested("verdict", known["verdict"], envelope)

        verdict = await self._database.read(question)
        return Concluded(standing, standing.decision, fresh=False, verdict=verdict)

    # --- every later one

    async def again(self, sha256: str) -> Concluded | None:
        """Judge a package again by what is known now; None where there is none.

        Where nobody can, ``problem`` says why, and the decision stands until its verdict ends.
        """
        for _ in range(ATTEMPTS):
            now = to_micros(self._clock.now())
            package = await self._database.read(lambda connection: packages.find(connection, sha256))
            if package is None:
                return None
            try:
                concluded = await self._again(package, now)
            except JudgingFailed as failed:
                concluded = await self._hold(package, failed, now)
            if concluded is not None:
                return concluded
        raise _busy(sha256)

    async def _again(self, package: PackageRecord, now: int) -> Concluded | None:
        standing = await self._database.read(lambda connection: _standing(connection, package))
        scan = await self._scan_of(standing, now)
        decided = await self._decide(standing.subject, scan, standing.exceptions, now)
        if self._says_the_same(standing, scan, decided):
            return await self._touch(package, scan, now)
        new = self._new(package, standing.subject, scan, decided, ())
        if not await self._write(new, package.judgement):
            return None
        return Concluded(new.package, package.decision, fresh=True, verdict=new.attestations[-1])

    async def _scan_of(self, standing: _Standing, now: int) -> Scan:
        """Return the scan that stands where nothing more is known since, else a new one."""
        package = standing.package
        if package.scan:
            facts = scan_facts_of(package.scan)
            if facts.known == await self._scanner.known() and facts.usable_until > now:
                return Scan(facts, [one.finding for one in standing.findings], None)
        components = await self._database.read(
            lambda connection: packages.components(connection, package.sha256)
        )
        return await self._scanner.scan(standing.subject, components)

    def _says_the_same(self, standing: _Standing, scan: Scan, decided: Decided) -> bool:
        """Whether the verdict that stands says all that a new one would, and for long enough."""
        package = standing.package
        if package.decision != decided.decision or package.policy != self.policy or not package.scan:
            return False
        former = scan_facts_of(package.scan)
        lifted = {
            (one.finding.component, one.finding.vulnerability): one.exception_id
            for one in standing.findings
            if one.exception_id
        }
        same = (
            tuple(package.decision_reasons) == decided.reasons
            and lifted == dict(decided.lifted)
            and (former.components, former.not_covered) == (scan.facts.components, scan.facts.not_covered)
            and findings_to_json(one.finding for one in standing.findings) == findings_to_json(scan.findings)
        )
        return same and not _worth_renewing(package, decided)

    async def _touch(self, package: PackageRecord, scan: Scan, now: int) -> Concluded | None:
        due = renewal(package.decision, now, package.verdict_expire_time)
        async with self._database.unit_of_work() as work:
            if not await decisions.touch(
                work,
                package.sha256,
                package.judgement,
                known=scan.facts.known,
                policy=self.policy,
                due_time=due,
            ):
                return None
        return Concluded(package, package.decision, fresh=False)

    async def _hold(self, package: PackageRecord, failed: JudgingFailed, now: int) -> Concluded | None:
        """Let a decision stand that nobody can make anew, unless its time is over or its ground is gone."""
        ended = now >= package.verdict_expire_time
        # Something that it stands on was changed since: who may answer for it now cannot be told.
        unfounded = package.decision is Decision.EXCEPTION and package.due_time == 0
        if not package.decision.releases or not (ended or unfounded):
            return Concluded(package, package.decision, fresh=False, problem=failed)
        unjudged = replace(
            package,
            decision=Decision.UNJUDGED,
            decision_time=now,
            decision_reasons=(f"it cannot be judged again: {failed.message}",),
            due_time=now + RETRY,
        )
        if not await self._write(NewDecision(unjudged), package.judgement):
            return None
        return Concluded(unjudged, package.decision, fresh=True, problem=failed)

    # --- both

    async def _decide(
        self, subject: Subject, scan: Scan, exceptions: Sequence[PolicyException], now: int
    ) -> Decided:
        # Rules may take long, and the event loop is not theirs.
        return await asyncio.to_thread(decide, self._terms, subject, scan, exceptions, now)

    def _new(
        self,
        package: PackageRecord,
        subject: Subject,
        scan: Scan,
        decided: Decided,
        evidence: Sequence[Attested],
    ) -> NewDecision:
        record = replace(
            package,
            decision=decided.decision,
            decision_time=decided.time,
            decision_reasons=decided.reasons,
            counts=decided.counts,
            purl=subject.purl,
            facts=subject.to_json(),
            scan=scan.facts.to_json(),
            known=scan.facts.known,
            policy=self.policy,
            due_time=decided.due,
            verdict_expire_time=decided.expires,
        )
        signed = self._attesting.sign("verdict", decided.payload)
        scanned = [scan.attested] if scan.attested else []
        return NewDecision(
            record, (*evidence, *scanned, signed), findings=scan.findings, lifted=decided.lifted
        )

    async def _write(self, new: NewDecision, seen: int | None) -> bool:
        async with self._database.unit_of_work() as work:
            return await decisions.write(work, new, seen)


async def _before(connection: Any, sha256: str) -> tuple[PackageRecord | None, Sequence[PolicyException]]:
    known = await excepted.of_package(connection, sha256)
    return await packages.find(connection, sha256), [one.for_policy() for one in known]


async def _standing(connection: Any, package: PackageRecord) -> _Standing:
    sha256 = package.sha256
    known = (await packages.attestations(connection, [sha256])).get(sha256, {})
    file_name, facts, provenance = kept_facts(package.facts)
    subject = Subject(
        sha256=sha256,
        file_name=file_name,
        purl=package.purl,
        facts=facts,
        provenance=provenance,
        files=package.file_count,
        claimed=package.claimed_file_count,
        attestations={kind: one for kind, one in known.items() if kind not in ("scan", "verdict")},
        vex=await packages.vex_of(connection, sha256),
    )
    return _Standing(
        package,
        subject,
        await packages.findings(connection, sha256),
        [one.for_policy() for one in await excepted.of_package(connection, sha256)],
    )


def _worth_renewing(package: PackageRecord, decided: Decided) -> bool:
    """Whether half of a verdict's life is over and a new one would live longer."""
    if not decided.decision.releases:
        return False
    half = package.decision_time + (package.verdict_expire_time - package.decision_time) // 2
    longer = decided.expires - package.verdict_expire_time
    return decided.time >= half and longer > (decided.expires - decided.time) // 8


def _busy(sha256: str) -> JudgingFailed:
    return JudgingFailed(
        "BUSY", f"packages/{sha256} is judged by others again and again; try again in a minute"
    )
