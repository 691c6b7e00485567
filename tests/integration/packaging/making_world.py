"""The stages that make a package, on a real store, a real database and real isolation."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fleetwright.verify.envelopes import Envelope
from fleetwright.verify.keys import AttestationKeys, Attester, Purpose
from fleetwright.verify.statements import Statement, parse_statement

from controlplane.packaging.blobs import Blobs
from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.rules import Decision, PipelineState, Stage
from controlplane.packaging.signing.keys import OriginKey
from controlplane.packaging.stages import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.stages.asking import Scanners
from controlplane.packaging.stages.build import build
from controlplane.packaging.stages.intake import intake
from controlplane.packaging.stages.sbom import sbom
from controlplane.packaging.stages.sign import sign
from controlplane.packaging.stages.workshop import Workshop
from controlplane.packaging.store.pipelines import PipelineRecord
from controlplane.storage.database import Database
from controlplane.trust import dsse
from controlplane.trust.keys import SigningKey

BUILDER = "https://example.org/fleetwright/builders/test"
MAKING = (Stage.INTAKE, Stage.BUILD, Stage.SIGN, Stage.SBOM)
FIRST_USER = 60_000
"""Jobs of different tests count their processes apart."""

_numbers = itertools.count(1)


def nothing(_: str) -> Path | None:
    """Find no scanner, whatever is installed here."""
    return None


class StoppedClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.moment = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


@dataclass
class World:
    """Stages, and what they work on."""

    folder: Path
    database: Database
    keys: dict[Purpose, SigningKey] = field(
        default_factory=lambda: {purpose: SigningKey.generate() for purpose in Purpose}
    )
    origin: OriginKey | None = None
    scanners: Scanners = field(default_factory=lambda: Scanners(find=nothing))
    clock: StoppedClock = field(default_factory=StoppedClock)
    said: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blobs = Blobs(self.folder / "blobs")
        settings = IsolationSettings(self.folder / "scratch", uid=FIRST_USER + os.getpid() % 5_000)
        self.workshop = Workshop(self.blobs, settings)
        self.origin_for: Callable[[], OriginKey | None] = lambda: self.origin

    def stage(self, stage: Stage) -> StageRun:
        made = {
            Stage.INTAKE: lambda: intake(self.workshop),
            Stage.BUILD: lambda: build(self.workshop, self.clock, BUILDER),
            Stage.SIGN: lambda: sign(
                self.workshop, self.database, self.clock, self.keys.get, self.origin_for
            ),
            Stage.SBOM: lambda: sbom(self.workshop, self.keys.get, self.scanners),
        }
        return made[stage]()

    async def pipeline(self, file_name: str, content: bytes, **fields: Any) -> PipelineRecord:
        """Store an artefact, and return a pipeline for it."""
        path = self.folder / f"upload-{next(_numbers)}"
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        await self.blobs.put_file(path, sha256)
        record = PipelineRecord(
            f"p{next(_numbers)}", sha256, file_name, "", "", "", "", "stable", PipelineState.RUNNING, 0, "",
            Stage.INTAKE, None, Decision.UNJUDGED, "build-1", "", "", "", "", None, "ada", 0, 0, 1, 1, False,
            0,
        )  # fmt: skip
        if "manifest" in fields:
            fields["manifest"] = json.dumps(fields["manifest"])
        return replace(record, **fields)

    async def run(
        self, stage: Stage, pipeline: PipelineRecord, outcomes: Mapping[Stage, Mapping[str, Any]]
    ) -> StageDone:
        """Run one stage in an empty folder, as a worker does."""
        folder = self.folder / f"job-{next(_numbers)}"
        folder.mkdir()
        try:
            job = Job(pipeline, outcomes, folder, lambda level, text: self.said.append((level, text)))
            return await self.stage(stage)(job)
        finally:
            shutil.rmtree(folder)

    async def make(self, file_name: str, content: bytes, last: Stage = Stage.SBOM, **fields: Any) -> Made:
        """Run the stages up to ``last``, each with what those before it committed."""
        pipeline = await self.pipeline(file_name, content, **fields)
        made = Made(self, pipeline)
        for stage in MAKING[: MAKING.index(last) + 1]:
            await made.step(stage)
        return made

    async def content(self, sha256: str) -> bytes:
        return b"".join([piece async for piece in self.blobs.read(sha256)])

    def attesters(self) -> AttestationKeys:
        """Return who may attest what, as agents know it."""
        until = self.clock.moment + timedelta(days=1)
        listed = (Attester(key.public, frozenset({purpose}), until) for purpose, key in self.keys.items())
        return AttestationKeys(1, tuple(listed))

    async def attested(self, sha256: str, purpose: Purpose) -> Statement:
        """Return what an envelope says, verified."""
        envelope: Envelope = dsse.verify(await self.content(sha256), [self.keys[purpose].public])
        assert envelope.sha256 == sha256
        return parse_statement(envelope.payload)


@dataclass
class Made:
    """A pipeline and what its stages found so far, as the database would give it back."""

    world: World
    pipeline: PipelineRecord
    done: dict[Stage, StageDone] = field(default_factory=dict)
    outcomes: dict[Stage, dict[str, Any]] = field(default_factory=dict)

    async def step(self, stage: Stage) -> StageDone:
        found = await self.world.run(stage, self.pipeline, dict(self.outcomes))
        self.done[stage] = found
        self.outcomes[stage] = json.loads(json.dumps(found.outcome))
        json.dumps(found.report())
        facts: Any = found.facts
        self.pipeline = replace(self.pipeline, **facts)
        return found


async def failure(world: World, file_name: str, content: bytes, **fields: Any) -> StageFailed:
    """Return how making ends that must fail."""
    try:
        await world.make(file_name, content, **fields)
    except StageFailed as failed:
        return failed
    raise AssertionError("it was made")
