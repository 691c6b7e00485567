"""A server whose streams the test itself answers: real gRPC, real mutual TLS, scripted behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

import grpc
from fleetwright.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    work_pb2,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from tests.integration.agent_sim.protocol_authority import Authority, spiffe_id

PATIENCE = 10.0
"""Seconds that a test waits for what must come; it never waits for what must not."""

In = TypeVar("In")
Out = TypeVar("Out")


def rich_error(
    code: grpc.StatusCode, reason: str, retry: timedelta | None = None
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    status = status_pb2.Status(code=cast(Any, code.value)[0], message="scripted")
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="fleetwright")]
    if retry is not None:
        delay = Duration()
        delay.FromTimedelta(retry)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return code, "scripted", (("grpc-status-details-bin", status.SerializeToString()),)


class Peer(Generic[In, Out]):
    """One open stream, seen from the server."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._received: asyncio.Queue[In | None] = asyncio.Queue()
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        # Read now: the context of a call that has ended crashes gRPC.
        self.serial = self._client_serial()
        self.connection: str = context.peer()

    def _client_serial(self) -> int:
        from cryptography import x509

        pem = self._context.auth_context()["x509_pem_cert"][0]
        return x509.load_pem_x509_certificate(pem).serial_number

    async def next(self) -> In:
        async with asyncio.timeout(PATIENCE):
            message = await self._received.get()
        assert message is not None, "the agent half-closed"
        return message

    async def half_closed(self) -> list[In]:
        """Wait for the half-close; return what came before it."""
        seen = []
        async with asyncio.timeout(PATIENCE):
            while (message := await self._received.get()) is not None:
                seen.append(message)
        return seen

    def send(self, message: Out) -> None:
        self._outgoing.put_nowait(message)

    def end(self) -> None:
        self._outgoing.put_nowait(None)

    def fail(self, code: grpc.StatusCode, reason: str, retry: timedelta | None = None) -> None:
        self._outgoing.put_nowait(rich_error(code, reason, retry))

    async def serve(self, requests: AsyncIterator[In]) -> None:
        async def receive() -> None:
            async for message in requests:
                self._received.put_nowait(message)
            self._received.put_nowait(None)
            self._outgoing.put_nowait(None)

        receiving = asyncio.create_task(receive())
        try:
            while (message := await self._outgoing.get()) is not None:
                if isinstance(message, tuple):
                    await self._context.abort(*message)
                await self._context.write(message)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)


HeartbeatPeer = Peer[agent_service_pb2.HeartbeatRequest, agent_service_pb2.HeartbeatResponse]
TasksPeer = Peer[agent_service_pb2.TasksRequest, agent_service_pb2.TasksResponse]
TelemetryPeer = Peer[agent_service_pb2.TelemetryRequest, agent_service_pb2.TelemetryResponse]


class ScriptedServer(
    agent_service_pb2_grpc.AgentServiceServicer, enrollment_service_pb2_grpc.EnrollmentServiceServicer
):
    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.heartbeats: asyncio.Queue[HeartbeatPeer] = asyncio.Queue()
        self.tasks: asyncio.Queue[TasksPeer] = asyncio.Queue()
        self.telemetry: asyncio.Queue[TelemetryPeer] = asyncio.Queue()
        self.renewals = 0
        self.enrolments: list[enrollment_service_pb2.EnrollRequest] = []
        self.trusted_root = b""
        self.enrolment_errors: list[tuple[grpc.StatusCode, str]] = []
        self.epoch = 0
        self.time: datetime | None = None
        """What Welcome says; nothing where it is not set."""
        self.nonces: list[bytes] = []
        self.address = ""
        self.enrollment_address = ""
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        pair = [(self.authority.server_key_pem, self.authority.server_chain_pem)]
        agents = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self, agents)
        mutual = grpc.ssl_server_credentials(pair, self.authority.root_pem, require_client_auth=True)
        self.address = f"127.0.0.1:{agents.add_secure_port('127.0.0.1:0', mutual)}"
        enrolment = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        enrollment_service_pb2_grpc.add_EnrollmentServiceServicer_to_server(self, enrolment)
        port = enrolment.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
        self.enrollment_address = f"127.0.0.1:{port}"
        self._servers = [agents, enrolment]
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(None)

    async def Heartbeat(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        peer: HeartbeatPeer = Peer(context)
        self.heartbeats.put_nowait(peer)
        await peer.serve(request_iterator)

    async def Tasks(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        peer: TasksPeer = Peer(context)
        self.tasks.put_nowait(peer)
        await peer.serve(request_iterator)

    async def Telemetry(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        peer: TelemetryPeer = Peer(context)
        self.telemetry.put_nowait(peer)
        await peer.serve(request_iterator)

    async def RenewCertificate(
        self, request: agent_service_pb2.RenewCertificateRequest, context: Any
    ) -> agent_service_pb2.RenewCertificateResponse:
        self.renewals += 1
        issued = self.authority.issue(request.certificate_signing_request, "a1")
        return agent_service_pb2.RenewCertificateResponse(certificate=issued)

    async def FetchMetadata(
        self, request: agent_service_pb2.FetchMetadataRequest, context: Any
    ) -> agent_service_pb2.FetchMetadataResponse:
        await context.abort(*rich_error(grpc.StatusCode.FAILED_PRECONDITION, "TRUST_NOT_SET_UP"))
        raise AssertionError

    async def DownloadArtefact(
        self, request: agent_service_pb2.DownloadArtefactRequest, context: Any
    ) -> AsyncIterator[agent_service_pb2.DownloadArtefactResponse]:
        await context.abort(*rich_error(grpc.StatusCode.NOT_FOUND, "PACKAGE_UNKNOWN"))
        yield agent_service_pb2.DownloadArtefactResponse()

    async def Enroll(
        self, request: enrollment_service_pb2.EnrollRequest, context: Any
    ) -> enrollment_service_pb2.EnrollResponse:
        self.enrolments.append(request)
        if self.enrolment_errors:
            await context.abort(*rich_error(*self.enrolment_errors.pop(0), timedelta(0)))
        issued = self.authority.issue(request.certificate_signing_request, request.agent_id)
        return enrollment_service_pb2.EnrollResponse(
            spiffe_id=spiffe_id(request.agent_id),
            certificate=issued,
            agent_addresses=[self.address],
            trusted_root=self.trusted_root,
        )

    async def next_heartbeat(self) -> HeartbeatPeer:
        async with asyncio.timeout(PATIENCE):
            return await self.heartbeats.get()

    async def next_tasks(self) -> TasksPeer:
        async with asyncio.timeout(PATIENCE):
            return await self.tasks.get()

    async def next_telemetry(self) -> TelemetryPeer:
        async with asyncio.timeout(PATIENCE):
            return await self.telemetry.get()

    async def welcome(
        self, heartbeat: timedelta = timedelta(seconds=30), telemetry: timedelta = timedelta(hours=1)
    ) -> tuple[HeartbeatPeer, agent_service_pb2.Hello]:
        """Take the next session."""
        peer = await self.next_heartbeat()
        hello = (await peer.next()).hello
        peer.send(agent_service_pb2.HeartbeatResponse(welcome=self.make_welcome(heartbeat, telemetry)))
        return peer, hello

    def make_welcome(self, heartbeat: timedelta, telemetry: timedelta) -> agent_service_pb2.Welcome:
        self.epoch += 1
        self.nonces.append(self.epoch.to_bytes(16, "big"))
        welcome = agent_service_pb2.Welcome(
            session_epoch=self.epoch,
            next_nonce=self.nonces[-1],
            limits=agent_service_pb2.SessionLimits(
                max_message_bytes=1 << 20, max_chunk_bytes=4, max_batch_points=3, max_credits=64
            ),
        )
        if self.time is not None:
            welcome.server_time.FromDatetime(self.time)
        welcome.heartbeat_interval.FromTimedelta(heartbeat)
        welcome.telemetry_interval.FromTimedelta(telemetry)
        return welcome

    async def open_tasks(
        self, heartbeat: HeartbeatPeer | None = None, unwanted: Sequence[str] = ()
    ) -> tuple[TasksPeer, Any]:
        """Let the agent open its Tasks stream, and accept it."""
        if heartbeat is not None:
            available = agent_service_pb2.WorkAvailable()
            heartbeat.send(agent_service_pb2.HeartbeatResponse(work_available=available))
        peer = await self.next_tasks()
        opening = (await peer.next()).open
        opened = agent_service_pb2.TasksOpened(linger=Duration(seconds=60), unwanted=unwanted)
        peer.send(agent_service_pb2.TasksResponse(opened=opened))
        return peer, opening


def echo(attempt_id: str, task: str = "", payload: bytes = b"hello") -> agent_service_pb2.TasksResponse:
    """Assign an echo."""
    return agent_service_pb2.TasksResponse(
        assignment=agent_service_pb2.Assignment(
            attempt_id=attempt_id,
            task=task or f"tasks/{attempt_id}",
            number=1,
            spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=payload)),
            run_limit=Duration(seconds=600),
        )
    )


def acknowledge(attempt_id: str) -> agent_service_pb2.TasksResponse:
    return agent_service_pb2.TasksResponse(
        result_acknowledged=agent_service_pb2.ResultAcknowledged(
            attempt_id=attempt_id, disposition=agent_service_pb2.RESULT_DISPOSITION_COMMITTED
        )
    )
