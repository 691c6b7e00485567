"""A package on its way through SCAN and POLICY, on a real database, with keys and advisories made on the
spot.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fleetwright.verify.chain import verify_attestations
from fleetwright.verify.keys import AttestationKeys, Attester, Purpose
from fleetwright.verify.predicates import Material, Provenance
from fleetwright.verify.reports import Outcome
from fleetwright.verify.statements import Subject as Named

from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.forms import components_to_json
from controlplane.packaging.judging import Attesting, Judging, Scanner, Terms
from controlplane.packaging.judging.scanner import SecondEngine
from controlplane.packaging.policy.cel import CompiledPolicy, load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.policy.verdict import Verifier
from controlplane.packaging.records import Component
from controlplane.packaging.rescanning import Rescanning
from controlplane.packaging.rules import Decision, PipelineState, Stage
from controlplane.packaging.stages import Job, StageDone, StageRun
from controlplane.packaging.stages.policy import policy
from controlplane.packaging.stages.scan import scan
from controlplane.packaging.store import packages, pipelines
from controlplane.packaging.store.packages import PackageRecord
from controlplane.packaging.store.pipelines import PipelineRecord
from controlplane.storage.database import Database
from controlplane.trust import dsse, statements
from controlplane.trust.keys import SigningKey
from tests.contracts.agents_world import SetClock

CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
HIGH = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"
LOW = "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N"
MAX_AGE = timedelta(days=20)
LIFE = timedelta(days=8)
FOO = Component("PyPI", "foo", "0.5", "pkg:pypi/foo@0.5")
APP = Component("PyPI", "app", "1.0", "pkg:pypi/app@1.0")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def advisory(
    identifier: str,
    name: str = "foo",
    *,
    vector: str = "",
    modified: str = "2024-04-30T00:00:00Z",
    **more: Any,
) -> dict[str, Any]:
    """An OSV record: what is below 1.0 is affected."""
    events = [{"introduced": "0"}, {"fixed": "1.0"}]
    affected = [
        {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    ]
    severity = [{"type": "CVSS_V3", "score": vector}] if vector else []
    return {"id": identifier, "modified": modified, "affected": affected, "severity": severity, **more}


QUIET = advisory("X-0", "nobody-has-this")
"""Knows nothing against anybody: advisories are there."""


def vex(vulnerability: str, status: str, product: str = FOO.purl, **more: str) -> str:
    statement = {
        "vulnerability": {"name": vulnerability},
        "products": [{"@id": product}],
        "status": status,
        **more,
    }
    return json.dumps(
        {
            "@context": "https://openvex.dev/ns/v0.2.0",
            "timestamp": "2024-04-01T00:00:00Z",
            "statements": [statement],
        }
    )


@dataclass(frozen=True)
class Holder:
    """An agent that has a package, since an instant."""

    agent_id: str
    time: int


@dataclass
class Released:
    """Notes what is asked of releasing, and who has what, as a test says."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    agents: dict[str, list[str]] = field(default_factory=dict)

    async def publish(self, package: str, /) -> None:
        self.asked.append(("publish", package))

    async def withdraw(self, package: str, reason: str, /) -> None:
        assert reason
        self.asked.append(("withdraw", package))

    async def agents_having(self, package: str, /) -> Sequence[Holder]:
        return [Holder(agent_id, 0) for agent_id in self.agents.get(package, [])]

    async def installed_counts(self, packages: Sequence[str], /) -> Mapping[str, int]:
        return {one: len(self.agents[one]) for one in packages if one in self.agents}


class PackagingWorld:
    """All of judging on one database; ``terms`` may be exchanged by ``under``."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.clock = SetClock()
        self.blobs = Blobs(folder / "blobs")
        self.advisories = AdvisoriesService(database, self.clock)
        self.keys = {purpose: SigningKey.generate() for purpose in Purpose}
        self.released = Released()
        self.said: list[str] = []
        self._jobs = 0
        self._second: SecondEngine | None = None
        self.under(load_policy(DEFAULT_POLICY))

    @property
    def second(self) -> SecondEngine | None:
        """The engine that is asked beside ours."""
        return self._second

    @second.setter
    def second(self, engine: SecondEngine | None) -> None:
        self._second = engine
        self.under(load_policy(DEFAULT_POLICY))

    def under(self, chosen: CompiledPolicy, keys: Mapping[Purpose, SigningKey] | None = None) -> None:
        """Judge by another policy, or with other keys, from now on."""
        attesting = Attesting(self.keys if keys is None else keys)
        terms = Terms(chosen, Verifier("https://fleet.example.org/factory", "1"), MAX_AGE, LIFE)
        scanner = Scanner(self.advisories, attesting, self.clock, terms, self._second)
        self.judging = Judging(self.database, self.clock, scanner, attesting, terms)
        self.rescanning = Rescanning(self.database, self.clock, self.judging, self.released, self.released)

    async def put(self, *records: dict[str, Any]) -> None:
        """Import an export of PyPI that has these records."""
        path = self.folder / "PyPI" / "all.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for one in records:
                archive.writestr(f"{one['id']}.json", json.dumps(one))
        await self.advisories.import_path(path, accept_rollback=True)

    # --- a pipeline

    async def made(
        self,
        *components: Component,
        content: bytes = b"the final bytes",
        vex: str = "",
        pipeline_id: str = "p1",
        sign: Mapping[Purpose, SigningKey] | None = None,
        about: bytes | None = None,
    ) -> Job:
        """Return the job of a package whose first four stages are done, with what they left."""
        await self._insert(pipeline_id, vex)
        package = sha(content)
        keys = sign or self.keys
        subject = [Named("app.fwpkg", sha(about or content))]
        provenance = await self._blob(dsse.sign(self._provenance(subject), [keys[Purpose.PROVENANCE]]))
        bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": []}
        sbom = await self._blob(dsse.sign(statements.cyclonedx(subject, bom), [keys[Purpose.SBOM]]))
        listed = await self._blob(components_to_json(components or (APP, FOO)))
        outcomes: dict[Stage, Mapping[str, Any]] = {
            Stage.INTAKE: {"facts": {"type": "wheel", "name": "app", "version": "1.0", "details": {}}},
            Stage.BUILD: {"provenance": {"runDetails": {"builder": {"id": "https://b.example.org"}}}},
            Stage.SIGN: {
                "package": {"sha256": package, "size": len(content), "file_name": "app.fwpkg"},
                "attestations": {"provenance": provenance},
                "signatures": [{"kind": "dsse", "state": "VERIFIED"}],
            },
            Stage.SBOM: {
                "components": listed,
                "file_count": 10,
                "claimed_file_count": 9,
                "component_count": 2,
                "attestations": {"sbom": sbom},
            },
        }
        return await self._job(pipeline_id, outcomes)

    def _provenance(self, subject: Sequence[Named]) -> bytes:
        now = self.clock.now()
        built = Provenance(
            "https://b.example.org/t", "https://b.example.org", "p", now, now, (Material("a", "", "c" * 64),)
        )
        return statements.provenance(subject, built, external={"artefact": "a"})

    async def _insert(self, pipeline_id: str, vex: str) -> None:
        now = self.clock.micros()
        record = PipelineRecord(
            pipeline_id, "a" * 64, "app.whl", "wheel", "any", "app", "1.0", "stable", PipelineState.RUNNING,
            now, "", None, None, Decision.UNJUDGED, "b1", "", "", "", vex, None, "ada", now, now, 1, 0,
            False, 0,
        )  # fmt: skip
        async with self.database.unit_of_work() as work:
            await pipelines.insert_pipeline(work, record)

    async def _blob(self, content: bytes) -> str:
        path = self.folder / "content"
        path.write_bytes(content)
        await self.blobs.put_file(path, sha(content))
        return sha(content)

    async def _job(self, pipeline_id: str, outcomes: Mapping[Stage, Mapping[str, Any]]) -> Job:
        found = await self.database.read(lambda connection: pipelines.find(connection, pipeline_id))
        assert found is not None
        self._jobs += 1
        folder = self.folder / f"job{self._jobs}"
        folder.mkdir()
        return Job(found, outcomes, folder, lambda level, text: self.said.append(f"{level}: {text}"))

    def scan_stage(self) -> StageRun:
        return scan(self.blobs, self.judging)

    def policy_stage(self) -> StageRun:
        return policy(self.blobs, self.judging, self.released, self.clock)

    async def scanned(self, job: Job) -> Job:
        """Do stage SCAN; returns the job of the next one."""
        done = await self.scan_stage()(job)
        return await self._job(job.pipeline.pipeline_id, {**job.outcomes, Stage.SCAN: done.outcome})

    async def judged(self, job: Job) -> StageDone:
        """Do stages SCAN and POLICY."""
        return await self.policy_stage()(await self.scanned(job))

    # --- what came of it

    async def package(self, content: bytes = b"the final bytes") -> PackageRecord:
        found = await self.database.read(lambda connection: packages.find(connection, sha(content)))
        assert found is not None
        return found

    async def envelope(self, kind: str, content: bytes = b"the final bytes") -> bytes:
        found = await self.database.read(lambda connection: packages.envelope(connection, sha(content), kind))
        assert found is not None
        return found

    async def refused(self, content: bytes = b"the final bytes") -> list[str]:
        """Judge the evidence that stands as an agent does; returns the checks that do not hold."""
        kinds = ("provenance", "sbom", "scan", "verdict")
        lines = b"\n".join([await self.envelope(kind, content) for kind in kinds])
        until = self.clock.now() + timedelta(days=999)
        attesters = tuple(
            Attester(key.public, frozenset({purpose}), until) for purpose, key in self.keys.items()
        )
        keys = AttestationKeys(1, attesters)
        return [
            check.name
            for check in verify_attestations(sha(content), lines, keys, self.clock.now())
            if check.outcome is not Outcome.OK
        ]


def with_outcome(job: Job, stage: Stage, **changes: Any) -> Job:
    """Return a job with another outcome of a stage before."""
    return replace(job, outcomes={**job.outcomes, stage: {**job.outcomes[stage], **changes}})
