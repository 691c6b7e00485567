"""A served factory whose stages a test has made, and who calls it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetwright.v1 import advisory_service_pb2_grpc
from fleetwright.v1 import packaging_service_pb2 as pb2
from fleetwright.v1 import packaging_service_pb2_grpc as pb2_grpc

from controlplane.packaging.rules import Decision, Stage
from controlplane.packaging.stages import Job, StageDone
from tests.support.in_process import LocalSite, serving
from tests.support.streams import PATIENCE

DATA = bytes(range(256)) * 8
SHA256 = hashlib.sha256(DATA).hexdigest()
ENDED = pb2.PIPELINE_STATE_PASSED
"""Every state from this one on is final."""


@dataclass
class Stages:
    """Stages that note that they ran; ``instead`` has what a test gives them to do."""

    ran: list[str] = field(default_factory=list)
    instead: dict[Stage, Callable[[Job], Awaitable[StageDone]]] = field(default_factory=dict)

    def made(self) -> dict[Stage, Callable[[Job], Awaitable[StageDone]]]:
        return {stage: self._stage(stage) for stage in Stage}

    def _stage(self, stage: Stage) -> Callable[[Job], Awaitable[StageDone]]:
        async def run(job: Job) -> StageDone:
            self.ran.append(stage.name)
            if stage in self.instead:
                return await self.instead[stage](job)
            job.say("info", f"{stage.name} is done")
            outcome: dict[str, Any] = {}
            if stage is Stage.SIGN:
                signed = {
                    "kind": "dsse",
                    "key_id": "k1",
                    "state": "VERIFIED",
                    "verified_by": "x",
                    "detail": "",
                }
                outcome = {"signatures": [signed]}
            return StageDone(
                outcome,
                tools={"tool": "1.0"},
                facts={"package_name": "x"} if stage is Stage.INTAKE else {},
                counts=(0, 0, 1, 0, 2) if stage is Stage.SCAN else None,
                decision=Decision.PASS if stage is Stage.POLICY else Decision.UNJUDGED,
            )

        return run


@dataclass
class Factory:
    """The calls of an administrator."""

    site: LocalSite
    stages: Stages

    def __post_init__(self) -> None:
        channel = self.site.admin().channel
        self.calls: Any = pb2_grpc.PackagingServiceStub(channel)
        self.advisories: Any = advisory_service_pb2_grpc.AdvisoryServiceStub(channel)

    async def start(self, data: bytes = DATA, **fields: Any) -> pb2.Upload:
        request = pb2.StartUploadRequest(
            **{
                "file_name": "x.whl",
                "size_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                **fields,
            }
        )
        started: pb2.Upload = (await self.calls.StartUpload(request)).upload
        return started

    async def send(self, upload: pb2.Upload, data: bytes, offset: int = 0, size: int = 500) -> pb2.Upload:
        async def pieces() -> AsyncIterator[pb2.UploadArtefactRequest]:
            for place in range(0, len(data), size):
                yield pb2.UploadArtefactRequest(
                    upload=upload.name if not place else "",
                    offset=offset + place,
                    data=data[place : place + size],
                )

        sent: pb2.Upload = (await self.calls.UploadArtefact(pieces())).upload
        return sent

    async def artefact(self) -> str:
        """Upload the artefact where it is not there yet; returns its name."""
        upload = await self.start()
        return upload.artefact or (await self.send(upload, DATA)).artefact

    async def create(self, **fields: Any) -> pb2.Pipeline:
        request = pb2.CreatePipelineRequest(**{"artefact": await self.artefact(), **fields})
        created: pb2.Pipeline = (await self.calls.CreatePipeline(request)).pipeline
        return created

    async def get(self, name: str) -> pb2.Pipeline:
        found: pb2.Pipeline = (await self.calls.GetPipeline(pb2.GetPipelineRequest(name=name))).pipeline
        return found

    async def until(
        self, name: str, done: Callable[[pb2.Pipeline], bool] = lambda one: one.state >= ENDED
    ) -> pb2.Pipeline:
        """Watch a pipeline until it is as a test wants it, by default ended."""
        call = self.calls.WatchPipelines(
            pb2.WatchPipelinesRequest(filter=f'pipeline_id = "{name.partition("/")[2]}"')
        )
        async with asyncio.timeout(PATIENCE):
            try:
                async for response in call:
                    found: list[pb2.Pipeline] = [one for one in response.pipelines if done(one)]
                    if found:
                        return found[0]
            finally:
                call.cancel()
        raise AssertionError("the watch ended")

    async def log(self, name: str, *, follow: bool = False, after: int = 0) -> list[pb2.PipelineLogLine]:
        request = pb2.WatchPipelineLogRequest(name=name, follow=follow, after_line=after)
        return [line async for response in self.calls.WatchPipelineLog(request) for line in response.lines]


@asynccontextmanager
async def factory_of(folder: Path, stages: Stages | None = None, **settings: Any) -> AsyncIterator[Factory]:
    """Serve a folder with stages that a test has made."""
    stages = stages or Stages()
    async with serving(folder, stages=stages.made(), **settings) as site:
        yield Factory(site, stages)


def states(pipeline: pb2.Pipeline) -> Sequence[int]:
    return [stage.state for stage in pipeline.stages]
