"""Scanning a package's components with the advisories in force, and attesting what came of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from fleetwright.verify import predicates
from fleetwright.verify.documents import canonical
from fleetwright.verify.errors import Malformed
from fleetwright.verify.statements import Subject as Named

from controlplane.clock import Clock, duration_micros, from_micros, to_micros
from controlplane.packaging.advisories import vex
from controlplane.packaging.advisories.records import Scanned
from controlplane.packaging.advisories.rules import AdvisoryDataError
from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisories.telling import Told
from controlplane.packaging.forms import worst_first
from controlplane.packaging.judging.attesting import Attesting
from controlplane.packaging.judging.subjects import JudgingFailed, Scan, ScanFacts, Subject, Terms, known_by
from controlplane.packaging.records import Component, Finding, Scope
from controlplane.packaging.sbom.tools import NOT_RUN
from controlplane.packaging.trivy.comparing import SECOND, joined
from controlplane.packaging.trivy.engine import Answer
from controlplane.trust import statements as written

ENGINE = "fleetwright"
OF_NO_ECOSYSTEM = "unknown"
"""How a component is named that belongs to no ecosystem with advisories."""


class SecondEngine(Protocol):
    """Another program that judges by the same advisories: ``trivy.engine.Trivy``."""

    @property
    def ecosystems(self) -> Collection[str]:
        """The ecosystems of which it can be asked."""

    async def ask(self, told: Sequence[Told]) -> Answer:
        """Ask which records affect the components that they are told of."""


class Scanner:
    """Scans packages. What cannot be scanned is an error: advisories that are missing, empty, stale.

    Of ``second`` no such thing is asked: where it cannot look, that is said, and our engine's word stands.
    """

    def __init__(
        self,
        advisories: AdvisoriesService,
        attesting: Attesting,
        clock: Clock,
        terms: Terms,
        second: SecondEngine | None = None,
    ) -> None:
        self._second = second
        self._advisories = advisories
        self._attesting = attesting
        self._clock = clock
        self._terms = terms

    async def known(self) -> str:
        """Return the digest of what a scan would know now."""
        return known_by(await self._advisories.status())

    async def scan(self, subject: Subject, components: Sequence[Component]) -> Scan:
        """Return what is known against components. Raises ``JudgingFailed``.

        What only those need who build or test the package is left out: nobody runs it.
        """
        looked_at = [one for one in components if one.scope is not Scope.DEVELOPMENT]
        try:
            statements = vex.parse(subject.vex.encode()) if subject.vex else []
            found = await self._advisories.scan(
                looked_at,
                max_age=self._terms.max_age,
                statements=statements,
                product=subject.purl,
                required=self._terms.required,
            )
            found, engines = await self._by_both(looked_at, found)
        except AdvisoryDataError as error:
            raise JudgingFailed(f"ADVISORIES_{error.reason}", str(error)) from None
        except vex.VexError as error:
            raise JudgingFailed("VEX_MALFORMED", f"vex: {error}") from None
        found = replace(found, findings=vex.apply(found.findings, statements, subject.purl))
        return await asyncio.to_thread(self._attested, subject, looked_at, found, engines)

    async def _by_both(
        self, looked_at: Sequence[Component], found: Scanned
    ) -> tuple[Scanned, dict[str, str]]:
        """Return a scan with what the second engine says, and the version of each engine."""
        engines = {ENGINE: self._terms.verifier.version}
        if self._second is None:
            return found, engines
        standings, told = await self._advisories.told(looked_at, self._second.ecosystems)
        if known_by(standings) != known_by(found.coverage.in_force):
            return found, {**engines, SECOND: f"{NOT_RUN}advisories were imported meanwhile"}
        answer = await self._second.ask(told)
        if answer.hits is not None:
            found = replace(found, findings=joined(found.findings, answer.asked, answer.hits))
        return found, {**engines, SECOND: answer.version}

    def _attested(
        self, subject: Subject, looked_at: Sequence[Component], found: Scanned, engines: Mapping[str, str]
    ) -> Scan:
        now = to_micros(self._clock.now())
        components = len({(one.purl, one.ecosystem, one.name, one.version) for one in looked_at})
        not_covered = found.coverage.not_covered
        age = max(found.coverage.ages.values(), default=0)
        findings = worst_first(found.findings)
        facts = ScanFacts(
            time=now,
            known=known_by(found.coverage.in_force),
            imports={one.ecosystem: one.version for one in found.coverage.covered.values()},
            components=components,
            covered=components - sum(not_covered.values()),
            not_covered=tuple(sorted(one or OF_NO_ECOSYSTEM for one in not_covered)),
            age=age,
            usable_until=now + duration_micros(self._terms.max_age) - age,
            attestation="",
            engines=engines,
        )
        envelope = self._attesting.sign("scan", self._statement(subject, facts, findings, found))
        return Scan(replace(facts, attestation=envelope.sha256), tuple(findings), envelope)

    def _statement(
        self, subject: Subject, facts: ScanFacts, findings: Sequence[Finding], found: Scanned
    ) -> bytes:
        verifier = self._terms.verifier
        in_force = found.coverage.in_force
        used = [one for one in in_force if one.ecosystem in facts.imports] or in_force
        said = predicates.Scan(
            scanner=verifier.uri,
            scanner_version=verifier.version,
            engines=facts.engines,
            advisories=hashlib.sha256(canonical({one.ecosystem: one.digest for one in used})).hexdigest(),
            imported=from_micros(min(one.import_time for one in used)),
            sbom=subject.sbom,
            scanned=from_micros(facts.time),
            components=facts.components,
            covered=facts.covered,
            not_covered=facts.not_covered,
            findings=tuple(_said(one) for one in findings),
        )
        try:
            return written.scan([Named(subject.file_name, subject.sha256)], said)
        except Malformed as error:
            raise JudgingFailed("ATTESTATION", f"scan: cannot be attested: {error}") from None


def _said(one: Finding) -> predicates.ScanFinding:
    return predicates.ScanFinding(
        vulnerability=one.vulnerability,
        component=one.component,
        severity=one.severity.value,
        state=one.state,
        aliases=tuple(one.aliases)[: predicates.MOST_NAMES],
        found_by=tuple(one.found_by),
        score=one.score,
        severity_source=one.severity_source,
        matched=one.matched[:4_000],
        fixed=one.fixed,
        justification=one.justification,
    )
