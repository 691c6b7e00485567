"""A repository that a ceremony made, and packages as the stages before STORE leave them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import mkdtemp
from typing import Any

from fleetwright.verify.keys import Purpose
from fleetwright.verify.tuf_client import TufClient
from sqlalchemy import delete, insert, update

from controlplane.packaging.agent_downloads import AgentDownloads, DownloadPolicy
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.release_keys import ReleaseKeys
from controlplane.packaging.releasing import Releases
from controlplane.packaging.rules import Decision, PipelineState, Stage
from controlplane.packaging.store import pipelines as stored_pipelines
from controlplane.packaging.store.pipelines import PipelineRecord
from controlplane.packaging.store.tables import package_attestations, packages
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.trust import dsse
from controlplane.trust.tuf.ceremony import Online, initialise, load_online
from controlplane.trust.tuf.roles import Expiries, Thresholds
from tests.contracts.agents_world import SetClock
from tests.unit.verify import evidence_world as evidence
from tests.unit.verify.evidence_world import NOW

PACKAGE = evidence.PACKAGE
SHA256 = hashlib.sha256(PACKAGE).hexdigest()
PATH = "stable/curl/curl-8.1.deb"


@cache
def made_once() -> tuple[Path, Online]:
    """Make a repository's keys and first metadata, once for all tests; nobody writes into the folder."""
    folder = Path(mkdtemp(prefix="fleetwright-ceremony-"))
    initialise(
        folder / "offline",
        folder / "online",
        now=NOW,
        thresholds=Thresholds(),
        expiries=Expiries(),
        channels=["stable", "beta"],
    )
    return folder / "online", load_online(folder / "online")


def envelopes(package: bytes, verified: datetime = NOW, **changes: Any) -> dict[str, bytes]:
    """Return the attestations of a package by kind, signed by the keys of the ceremony."""
    keys = made_once()[1].attesters

    def signed(payload: bytes, purpose: Purpose) -> bytes:
        return dsse.sign(payload, [keys[purpose]])

    built = signed(evidence.provenance(package), Purpose.PROVENANCE)
    listed = signed(evidence.sbom(package), Purpose.SBOM)
    scanned = signed(evidence.scan(listed, package, scanned=verified - timedelta(minutes=6)), Purpose.SCAN)
    times = {"verified": verified - timedelta(minutes=5), "expires": verified + timedelta(days=90)}
    judged = evidence.verdict((built, listed, scanned), package, **{**times, **changes})
    return {
        "provenance": built,
        "sbom": listed,
        "scan": scanned,
        "verdict": signed(judged, Purpose.VERDICT),
    }


@dataclass
class World:
    """The room's releases, and short words for what tests do all the time."""

    database: Database
    blobs: Blobs
    clock: SetClock
    folder: Path
    releases: Releases
    downloads: AgentDownloads
    numbers: list[int] = field(default_factory=list)

    def process(self, keys: Path | None = None) -> Releases:
        """Return the releases of another process on the same database and store."""
        folder = self.folder / "release-trust" if keys is None else keys
        return Releases(self.database, self.blobs, self.clock, ReleaseKeys(folder), self.folder / "scratch")

    async def add(
        self,
        content: bytes = PACKAGE,
        *,
        name: str = "curl",
        file_name: str = "curl-8.1.deb",
        decision: Decision = Decision.PASS,
        channel: str = "stable",
        state: PipelineState = PipelineState.PASSED,
        stored: bool = True,
    ) -> str:
        """Write what the stages before STORE, and a pipeline's end, leave of a package."""
        sha256 = hashlib.sha256(content).hexdigest()
        if stored:
            await self.put(content)
        pipeline_id = await self.pipeline(sha256, file_name, channel, state)
        row = {
            "sha256": sha256,
            "package_name": name,
            "version": "8.1",
            "artefact_type": "deb",
            "target_platform": "linux/amd64",
            "size": len(content),
            "pipeline_id": pipeline_id,
            "decision": int(decision),
            "decision_time": 1,
            "component_count": 1,
            "file_count": 1,
            "claimed_file_count": 1,
            "create_time": 1,
        }
        async with self.database.unit_of_work() as work:
            await work.connection.execute(insert(packages).values(row))
        await self.attest(content)
        return sha256

    async def put(self, content: bytes) -> None:
        path = self.folder / "scratch" / "put"
        path.write_bytes(content)
        await self.blobs.put_file(path, hashlib.sha256(content).hexdigest())

    async def pipeline(
        self, package: str, file_name: str, channel: str, state: PipelineState = PipelineState.PASSED
    ) -> str:
        self.numbers.append(1)
        pipeline_id = f"p{len(self.numbers)}"
        record = PipelineRecord(
            pipeline_id, "a" * 64, file_name, "", "", "", "", channel, state, 0, "", None, None,
            Decision.UNJUDGED, "b1", "", "", "", "", package, "ada", len(self.numbers), 0, 1, 0, False, 0,
        )  # fmt: skip
        outcome = {"package": {"sha256": package, "size": 1, "file_name": file_name}}
        async with self.database.unit_of_work() as work:
            await stored_pipelines.insert_pipeline(work, record)
            await stored_pipelines.change_stage(work, pipeline_id, Stage.SIGN, outcome=outcome)
        return pipeline_id

    async def attest(self, content: bytes = PACKAGE, **changes: Any) -> None:
        """Let other attestations stand, as judging again does."""
        sha256 = hashlib.sha256(content).hexdigest()
        rows = [
            {
                "package": sha256,
                "kind": kind,
                "sha256": evidence.sha(line),
                "envelope": line,
                "create_time": 1,
            }
            for kind, line in envelopes(content, self.clock.now(), **changes).items()
        ]
        async with self.database.unit_of_work() as work:
            table = package_attestations
            await work.connection.execute(delete(table).where(table.c.package == sha256))
            await work.connection.execute(insert(table), rows)

    async def decide(self, decision: Decision, sha256: str = SHA256) -> None:
        async with self.database.unit_of_work() as work:
            statement = update(packages).where(packages.c.sha256 == sha256)
            await work.connection.execute(statement.values(decision=int(decision)))

    def client(self, state: Path, fetcher: Any) -> TufClient:
        return TufClient(state, made_once()[1].trusted_root, fetcher, self.clock.now)


@asynccontextmanager
async def world(location: Location, folder: Path, *, trust: bool = True) -> AsyncIterator[World]:
    """Open a world on a database; without ``trust``, nobody has run the ceremony."""
    (folder / "scratch").mkdir()
    if trust:
        copytree(made_once()[0], folder / "release-trust")
    database, clock = open_database(location), SetClock()
    clock.time = NOW
    blobs = Blobs(folder / "blobs")
    keys = ReleaseKeys(folder / "release-trust")
    releases = Releases(database, blobs, clock, keys, folder / "scratch")
    downloads = AgentDownloads(database, blobs, releases, DownloadPolicy(at_once=3, of_one_agent=2))
    opened = World(database, blobs, clock, folder, releases, downloads)
    try:
        yield opened
    finally:
        await opened.database.close()
