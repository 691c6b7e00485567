"""A factory that does what a test says: real gRPC, real mutual TLS, scripted behaviour."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import protovalidate
from fleetwright.v1 import (
    advisory_service_pb2,
    advisory_service_pb2_grpc,
    packaging_service_pb2,
    packaging_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
)

from controlplane.trust.layout import Layout, load
from tests.integration.cli.command import Command
from tests.integration.cli.refusals import LOST, Answers, Refusal
from tests.support.site import HOST

pb = packaging_service_pb2
PIECE = 64 * 1024
"""Bytes of a piece of a download."""


def sha(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Factory(
    packaging_service_pb2_grpc.PackagingServiceServicer,
    advisory_service_pb2_grpc.AdvisoryServiceServicer,
    task_service_pb2_grpc.TaskServiceServicer,
):
    """The server. A test fills in what is there, and looks at what was asked of it."""

    asked: list[Any] = field(default_factory=list)
    """Every request that was no stream, in order."""
    refusals: dict[str, list[Refusal]] = field(default_factory=dict)
    """What the next calls of a method are answered with instead."""

    uploads: dict[str, Any] = field(default_factory=dict)
    received: dict[str, bytearray] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    """Request ids, with the name of what they began."""
    rival: bytes = b""
    """What another command sends of the same upload, just before this one does."""
    cuts: list[int] = field(default_factory=list)
    """Where the next transfers are cut off: after so many bytes of the whole."""
    offsets: list[int] = field(default_factory=list)
    """Where each transfer began."""

    pipelines: dict[str, Any] = field(default_factory=dict)
    lines: list[Any] = field(default_factory=list)
    ends: Callable[[Any], None] = lambda pipeline: None
    """What becomes of a pipeline when its log has been read."""
    watched: list[Any] = field(default_factory=list)
    """What WatchPipelines sends; it ends by a loss, and goes on where it was."""

    packages: list[Any] = field(default_factory=list)
    parts: dict[str, bytes] = field(default_factory=dict)
    """Contents by part: "package", "bundle" and attestations."""
    findings: list[Any] = field(default_factory=list)
    deployments: list[Any] = field(default_factory=list)
    exceptions: list[Any] = field(default_factory=list)
    batch: Any = None
    tasks: list[Any] = field(default_factory=list)

    ecosystems: list[Any] = field(default_factory=list)
    exports: list[tuple[Any, bytes]] = field(default_factory=list)
    changed: int = 0

    address: str = ""

    def of(self, kind: type[Any]) -> list[Any]:
        """Return what was asked of one kind."""
        return [request for request in self.asked if isinstance(request, kind)]

    def _take(self, method: str, request: Any) -> None:
        protovalidate.validate(request)
        self.asked.append(request)
        if waiting := self.refusals.get(method):
            raise waiting.pop(0)

    # Uploads

    async def StartUpload(self, request: Any, context: Any) -> Any:
        self._take("StartUpload", request)
        name = self.begun.get(request.request_id) or f"uploads/u{len(self.uploads) + 1}"
        self.begun[request.request_id] = name
        if name not in self.uploads:
            self.uploads[name] = pb.Upload(
                name=name, file_name=request.file_name, size_bytes=request.size_bytes, sha256=request.sha256
            )
            self.received[name] = bytearray()
        return pb.StartUploadResponse(upload=self._standing(name))

    async def GetUpload(self, request: Any, context: Any) -> Any:
        self._take("GetUpload", request)
        return pb.GetUploadResponse(upload=self._standing(request.name))

    async def UploadArtefact(self, requests: AsyncIterator[Any], context: Any) -> Any:
        name = ""
        async for request in requests:
            protovalidate.validate(request)
            if not name:
                name = request.upload
                self.offsets.append(request.offset)
                self.received[name] += self.rival
                self.rival = b""
            if name not in self.uploads:
                raise Refusal(grpc.StatusCode.NOT_FOUND, "UPLOAD_UNKNOWN")
            received = self.received[name]
            if request.offset != len(received):
                raise Refusal(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "UPLOAD_OFFSET",
                    f"offset: {request.offset} is not where the upload stands, at {len(received)}",
                )
            received += request.data
            if self.cuts and len(received) >= self.cuts[0]:
                del received[self.cuts.pop(0) :]
                raise LOST
        upload = self._standing(name)
        if upload.committed_bytes == upload.size_bytes and not upload.artefact:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", "sha256: other bytes came")
        return pb.UploadArtefactResponse(upload=upload)

    def _standing(self, name: str) -> Any:
        if name not in self.uploads:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "UPLOAD_UNKNOWN", f"there is no {name}")
        upload = self.uploads[name]
        upload.committed_bytes = len(self.received[name])
        if sha(self.received[name]) == upload.sha256:
            upload.artefact = f"artefacts/{upload.sha256}"
        return upload

    # Pipelines

    async def CreatePipeline(self, request: Any, context: Any) -> Any:
        self._take("CreatePipeline", request)
        state = pb.PIPELINE_STATE_CREATED if request.on_demand else pb.PIPELINE_STATE_QUEUED
        name = f"pipelines/p{len(self.pipelines) + 1}"
        self.pipelines[name] = pb.Pipeline(
            name=name, artefact=request.artefact, file_name="curl.deb", state=state, channel=request.channel
        )
        return pb.CreatePipelineResponse(pipeline=self.pipelines[name])

    def _pipeline(self, name: str) -> Any:
        if name not in self.pipelines:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "PIPELINE_UNKNOWN", f"name: there is no {name}")
        return self.pipelines[name]

    async def GetPipeline(self, request: Any, context: Any) -> Any:
        self._take("GetPipeline", request)
        return pb.GetPipelineResponse(pipeline=self._pipeline(request.name))

    async def ExecutePipeline(self, request: Any, context: Any) -> Any:
        self._take("ExecutePipeline", request)
        self._pipeline(request.name).state = pb.PIPELINE_STATE_QUEUED
        return pb.ExecutePipelineResponse(pipeline=self.pipelines[request.name])

    async def RetryPipeline(self, request: Any, context: Any) -> Any:
        self._take("RetryPipeline", request)
        self._pipeline(request.name).state = pb.PIPELINE_STATE_QUEUED
        return pb.RetryPipelineResponse(pipeline=self.pipelines[request.name])

    async def CancelPipeline(self, request: Any, context: Any) -> Any:
        self._take("CancelPipeline", request)
        self._pipeline(request.name).state = pb.PIPELINE_STATE_CANCELLED
        return pb.CancelPipelineResponse(pipeline=self.pipelines[request.name])

    async def ListPipelines(self, request: Any, context: Any) -> Any:
        self._take("ListPipelines", request)
        found = list(self.pipelines.values())
        return pb.ListPipelinesResponse(pipelines=found, total_size=len(found))

    async def WatchPipelines(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._take("WatchPipelines", request)
        for place in range(int(request.resume_token or 0), len(self.watched)):
            yield pb.WatchPipelinesResponse(pipelines=self.watched[place], resume_token=str(place + 1))
            if self.cuts and self.cuts[0] == place + 1:
                self.cuts.pop(0)
                raise LOST
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED", "the script is over")

    async def WatchPipelineLog(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._take("WatchPipelineLog", request)
        pipeline = self._pipeline(request.name)
        for line in self.lines[request.after_line :]:
            yield pb.WatchPipelineLogResponse(lines=[line])
            if self.cuts and self.cuts[0] == line.number:
                self.cuts.pop(0)
                raise LOST
        if request.follow:
            self.ends(pipeline)

    # Packages

    def _package(self, name: str) -> Any:
        for package in self.packages:
            if package.name == name:
                return package
        raise Refusal(grpc.StatusCode.NOT_FOUND, "PACKAGE_UNKNOWN", f"name: there is no {name}")

    async def GetPackage(self, request: Any, context: Any) -> Any:
        self._take("GetPackage", request)
        return pb.GetPackageResponse(package=self._package(request.name))

    async def ListPackages(self, request: Any, context: Any) -> Any:
        self._take("ListPackages", request)
        found = [
            one
            for one in self.packages
            if "*" in request.filter
            or "package_name" not in request.filter
            or f'"{one.package_name}"' in request.filter
            if "version = " not in request.filter or f'version = "{one.version}"' in request.filter
        ]
        return pb.ListPackagesResponse(packages=found, total_size=len(found))

    async def ListFindings(self, request: Any, context: Any) -> Any:
        self._take("ListFindings", request)
        return pb.ListFindingsResponse(findings=self.findings, total_size=len(self.findings))

    async def DownloadPackage(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._take("DownloadPackage", request)
        self.offsets.append(request.offset)
        for piece in self._pieces(self.parts[request.part or "package"], request.offset):
            yield pb.DownloadPackageResponse(**piece)

    async def ExportBundle(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._take("ExportBundle", request)
        self.offsets.append(0)
        for piece in self._pieces(self.parts["bundle"], 0):
            yield pb.ExportBundleResponse(**piece)

    def _pieces(self, content: bytes, offset: int) -> Iterator[dict[str, Any]]:
        if offset > len(content):
            raise Refusal(grpc.StatusCode.OUT_OF_RANGE, "LIMIT_EXCEEDED", "offset: behind the end")
        for begin in range(offset, len(content), PIECE):
            if self.cuts and begin >= self.cuts[0]:
                self.cuts.pop(0)
                raise LOST
            yield {"offset": begin, "data": content[begin : begin + PIECE], "total_bytes": len(content)}

    # Deployments and exceptions

    async def DeployPackage(self, request: Any, context: Any) -> Any:
        self._take("DeployPackage", request)
        return pb.DeployPackageResponse(batch=self.batch)

    async def ListDeployments(self, request: Any, context: Any) -> Any:
        self._take("ListDeployments", request)
        return pb.ListDeploymentsResponse(deployments=self.deployments, total_size=len(self.deployments))

    async def GetTaskBatch(self, request: Any, context: Any) -> Any:
        return task_service_pb2.GetTaskBatchResponse(batch=self.batch)

    async def WatchTasks(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._take("WatchTasks", request)
        for change in self.tasks:
            yield change

    async def CreateException(self, request: Any, context: Any) -> Any:
        self._take("CreateException", request)
        made = pb.PolicyException(
            name="exceptions/e1",
            package=request.package,
            vulnerability=request.vulnerability,
            justification=request.justification,
            requester="spiffe://fleetwright.local/operator/admin",
        )
        made.expire_time.FromSeconds(4_000_000_000)
        self.exceptions.append(made)
        return pb.CreateExceptionResponse(exception=made)

    async def ApproveException(self, request: Any, context: Any) -> Any:
        self._take("ApproveException", request)
        self.exceptions[0].approver = "spiffe://fleetwright.local/operator/ada"
        return pb.ApproveExceptionResponse(exception=self.exceptions[0])

    async def RevokeException(self, request: Any, context: Any) -> Any:
        self._take("RevokeException", request)
        self.exceptions[0].revoke_time.FromSeconds(2_000_000_000)
        return pb.RevokeExceptionResponse(exception=self.exceptions[0])

    async def ListExceptions(self, request: Any, context: Any) -> Any:
        self._take("ListExceptions", request)
        return pb.ListExceptionsResponse(exceptions=self.exceptions, total_size=len(self.exceptions))

    # Advisories

    async def ImportAdvisories(self, requests: AsyncIterator[Any], context: Any) -> Any:
        opened, content = None, bytearray()
        async for request in requests:
            protovalidate.validate(request)
            if opened is None:
                opened = request.open
            else:
                content += request.data
        assert opened is not None
        assert (sha(content), len(content)) == (opened.sha256, opened.size_bytes)
        self.exports.append((opened, bytes(content)))
        if waiting := self.refusals.get("ImportAdvisories"):
            raise waiting.pop(0)
        found = [one for one in self.ecosystems if one.ecosystem == opened.ecosystem]
        return advisory_service_pb2.ImportAdvisoriesResponse(ecosystems=found, changed_count=self.changed)

    async def GetAdvisoryStatus(self, request: Any, context: Any) -> Any:
        self._take("GetAdvisoryStatus", request)
        return advisory_service_pb2.GetAdvisoryStatusResponse(ecosystems=self.ecosystems)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Factory]:
    """Serve a factory on a free port, with the certificates of a data folder."""
    trust = load(folder)
    factory = Factory()  # type: ignore[abstract] # of tasks it answers only what deployments ask
    server = grpc.aio.server(interceptors=[Answers()])
    packaging_service_pb2_grpc.add_PackagingServiceServicer_to_server(factory, server)
    advisory_service_pb2_grpc.add_AdvisoryServiceServicer_to_server(factory, server)
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(factory, server)
    credentials = grpc.ssl_server_credentials(
        [(trust.server_key_pem, trust.operators_chain_pem)],
        trust.operators.certificate_pem,
        require_client_auth=True,
    )
    factory.address = f"{HOST}:{server.add_secure_port(f'{HOST}:0', credentials)}"
    await server.start()
    try:
        yield factory
    finally:
        await server.stop(None)


def calling(command: Command, factory: Factory, folder: Path) -> Command:
    """Return the command of the first operator of a factory."""
    identity = Layout(folder).identity("operator", "admin")
    return command.having(FLEETWRIGHT_SERVER=factory.address, FLEETWRIGHT_IDENTITY=str(identity))
