"""A build system's program: it uploads artefacts, asks for their pipelines, and keeps its own list of both.

A call that fails is made again with the same ``request_id``, and an upload goes on where it was cut.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from fleetwright.v1 import advisory_service_pb2, advisory_service_pb2_grpc, packaging_service_pb2_grpc
from fleetwright.v1 import packaging_service_pb2 as pb2

from faults.factory.artefacts import Artefact

Answer = TypeVar("Answer")

ENDED = pb2.PIPELINE_STATE_PASSED
"""Every state from this one on is final."""
_PATIENCE = 120.0
_CALL_SECONDS = 15.0
_AGAIN_AFTER = 0.1
_PIECE = 64 << 10
_ADVISORIES = {
    "id": "FAULTS-1",
    "affected": [{"package": {"ecosystem": "PyPI", "name": "not-among-these"}, "versions": ["1.0"]}],
}


class FactoryCallers:
    """Has artefacts packaged; ``channel`` outlives the servers that it leads to."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.acknowledged: dict[str, str] = {}
        """Name of the pipeline of each request that was answered."""
        self.artefacts: dict[str, Artefact] = {}
        """What each request is for."""
        self.errors: Counter[str] = Counter()
        """Status codes of calls that failed."""
        self.calls: Any = packaging_service_pb2_grpc.PackagingServiceStub(channel)
        self._advisories: Any = advisory_service_pb2_grpc.AdvisoryServiceStub(channel)

    async def import_advisories(self) -> None:
        """Give the server advisories; without them nothing passes."""
        content = io.BytesIO()
        modified = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("FAULTS-1.json", json.dumps({**_ADVISORIES, "modified": modified}))
        data = content.getvalue()
        opening = advisory_service_pb2.ImportOpen(
            size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), ecosystem="PyPI"
        )

        async def messages() -> AsyncIterator[Any]:
            yield advisory_service_pb2.ImportAdvisoriesRequest(open=opening)
            yield advisory_service_pb2.ImportAdvisoriesRequest(data=data)

        await self._advisories.ImportAdvisories(messages())

    async def package(self, request_id: str, artefact: Artefact, *, on_demand: bool = False) -> str:
        """Have an artefact packaged; returns the name of its pipeline once that is acknowledged."""
        self.artefacts[request_id] = artefact
        name = await self._again(lambda: self._uploaded(request_id, artefact))
        request = pb2.CreatePipelineRequest(artefact=name, request_id=request_id, on_demand=on_demand)
        created = await self._again(lambda: self.calls.CreatePipeline(request, timeout=_CALL_SECONDS))
        self.acknowledged[request_id] = created.pipeline.name
        return str(created.pipeline.name)

    async def execute(self, name: str) -> None:
        """Begin a pipeline that was made on demand."""
        await self.calls.ExecutePipeline(pb2.ExecutePipelineRequest(name=name))

    async def retry(self, name: str) -> None:
        """Retry a pipeline that ended in error."""
        await self.calls.RetryPipeline(pb2.RetryPipelineRequest(name=name))

    async def _uploaded(self, request_id: str, artefact: Artefact) -> str:
        request = pb2.StartUploadRequest(
            file_name=artefact.file_name,
            size_bytes=len(artefact.data),
            sha256=artefact.sha256,
            request_id=f"{request_id}-upload",
        )
        upload = (await self.calls.StartUpload(request, timeout=_CALL_SECONDS)).upload
        if not upload.artefact:
            found = await self.calls.GetUpload(pb2.GetUploadRequest(name=upload.name), timeout=_CALL_SECONDS)
            upload = found.upload
        if not upload.artefact:
            pieces = _pieces(upload, artefact.data)
            upload = (await self.calls.UploadArtefact(pieces, timeout=_CALL_SECONDS)).upload
        return str(upload.artefact)

    async def pipeline(self, name: str) -> pb2.Pipeline:
        """Return a pipeline."""
        request = pb2.GetPipelineRequest(name=name)
        found = await self._again(lambda: self.calls.GetPipeline(request, timeout=_CALL_SECONDS))
        answer: pb2.Pipeline = found.pipeline
        return answer

    async def ended(self, name: str) -> pb2.Pipeline:
        """Wait for the end of a pipeline."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                found = await self.pipeline(name)
                if found.state >= ENDED:
                    return found
                await asyncio.sleep(_AGAIN_AFTER)

    async def pipelines(self) -> list[pb2.Pipeline]:
        """Return all pipelines that there are."""
        request = pb2.ListPipelinesRequest(page_size=1000)
        listed = await self._again(lambda: self.calls.ListPipelines(request, timeout=_CALL_SECONDS))
        return list(listed.pipelines)

    async def packages(self) -> list[pb2.Package]:
        """Return all packages that there are."""
        request = pb2.ListPackagesRequest(page_size=1000)
        listed = await self._again(lambda: self.calls.ListPackages(request, timeout=_CALL_SECONDS))
        return list(listed.packages)

    async def _again(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call until there is an answer. A refusal that another try would not change is raised."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                self.errors[error.code().name] += 1
                if error.code() not in _TRANSIENT or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_AFTER)


_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)


async def _pieces(upload: pb2.Upload, data: bytes) -> AsyncIterator[pb2.UploadArtefactRequest]:
    begin = upload.committed_bytes
    for offset in range(begin, len(data), _PIECE):
        name = upload.name if offset == begin else ""
        yield pb2.UploadArtefactRequest(upload=name, offset=offset, data=data[offset : offset + _PIECE])
