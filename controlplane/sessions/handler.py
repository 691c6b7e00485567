"""AgentService of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import agent_service_pb2_grpc as pb2_grpc

from controlplane.errors import FailedPrecondition
from controlplane.identity.service import IdentityService
from controlplane.sessions.heartbeats import Heartbeats
from controlplane.sessions.package_streams import PackageStreams
from controlplane.sessions.telemetry_streams import TelemetryStreams
from controlplane.sessions.work_streams import WorkStreams
from controlplane.transport.context import current_caller
from controlplane.transport.messages import issued_certificate

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


class AgentHandler(pb2_grpc.AgentServiceServicer):
    """Serves AgentService; without ``packages``, all but what agents fetch of them."""

    def __init__(
        self,
        heartbeats: Heartbeats,
        work: WorkStreams,
        telemetry: TelemetryStreams,
        identity: IdentityService,
        packages: PackageStreams | None = None,
    ) -> None:
        self._heartbeats = heartbeats
        self._work = work
        self._telemetry = telemetry
        self._identity = identity
        self._packages = packages

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_AgentServiceServicer_to_server(self, server)

    async def Heartbeat(  # type: ignore[override]  # the stub knows generators only; gRPC takes coroutines that write too
        self, request_iterator: Any, context: Context
    ) -> None:
        """Hold a session."""
        await self._heartbeats.serve(context)

    async def Tasks(  # type: ignore[override]  # the stub knows generators only; gRPC takes coroutines that write too
        self, request_iterator: Any, context: Context
    ) -> None:
        """Carry work and results."""
        await self._work.serve(context)

    async def Telemetry(  # type: ignore[override]  # the stub knows generators only; gRPC takes coroutines that write too
        self, request_iterator: Any, context: Context
    ) -> None:
        """Carry measured values."""
        await self._telemetry.serve(context)

    async def RenewCertificate(
        self, request: pb2.RenewCertificateRequest, context: Context
    ) -> pb2.RenewCertificateResponse:
        """Issue the next certificate."""
        issued = await self._identity.renew(current_caller(), request.certificate_signing_request)
        return pb2.RenewCertificateResponse(certificate=issued_certificate(issued))

    async def FetchMetadata(
        self, request: pb2.FetchMetadataRequest, context: Context
    ) -> pb2.FetchMetadataResponse:
        """Send a file of the TUF metadata."""
        return await self._served_packages().fetch_metadata(request)

    async def DownloadArtefact(  # type: ignore[override]  # the stub knows generators only; gRPC takes coroutines that write too
        self, request: pb2.DownloadArtefactRequest, context: Context
    ) -> None:
        """Send released bytes."""
        await self._served_packages().download(request, context)

    def _served_packages(self) -> PackageStreams:
        if self._packages is None:
            raise FailedPrecondition("TRUST_NOT_SET_UP", "this server releases no packages")
        return self._packages
