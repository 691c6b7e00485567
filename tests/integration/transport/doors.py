"""A server with all its doors on port 0, tiny servicers behind them, and clients of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
from fleetwright.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    enrollment_token_service_pb2,
    enrollment_token_service_pb2_grpc,
)
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from certs.authority import Identity, Root, issue_client, issue_server, make_root
from controlplane.clock import Clock, SystemClock
from controlplane.errors import ServiceError
from controlplane.observability.metrics import Metrics
from controlplane.transport import errors
from controlplane.transport.listeners import Limits, Listeners, Material, Ports
from controlplane.transport.methods import METHODS, Method
from controlplane.transport.tls import TlsMaterial

TRUST_DOMAIN = "fleetwright.local"
HOST = "127.0.0.1"


@dataclass
class ShiftedClock:
    """The system's clock, set ahead or back."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Tokens(enrollment_token_service_pb2_grpc.EnrollmentTokenServiceServicer):
    """Answers at once, or as a test tells it."""

    def __init__(self) -> None:
        self.on_list: Callable[[], Awaitable[None]] | None = None

    async def CreateEnrollmentToken(self, request: Any, context: Any) -> Any:
        token = enrollment_token_service_pb2.EnrollmentToken(name="enrollmentTokens/made")
        return enrollment_token_service_pb2.CreateEnrollmentTokenResponse(
            token=token, join_token="fwt1.s3cr3t"
        )

    async def ListEnrollmentTokens(self, request: Any, context: Any) -> Any:
        if self.on_list is not None:
            await self.on_list()
        return enrollment_token_service_pb2.ListEnrollmentTokensResponse()

    async def RevokeEnrollmentToken(self, request: Any, context: Any) -> Any:
        raise NotImplementedError("not of interest here")


class Agents(agent_service_pb2_grpc.AgentServiceServicer):
    """Answers each beat; ``failure`` is raised after the first message."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()

    async def Heartbeat(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # reads and writes the context
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if self.failure is not None:
                    raise self.failure
                answer = agent_service_pb2.BeatAcknowledged(sequence=message.beat.sequence)
                await context.write(agent_service_pb2.HeartbeatResponse(beat_acknowledged=answer))
        finally:
            self.ended.set()

    async def Tasks(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for message in request_iterator:
            acknowledged = agent_service_pb2.ResultAcknowledged(attempt_id=message.accepted.attempt_id)
            yield agent_service_pb2.TasksResponse(result_acknowledged=acknowledged)

    async def Telemetry(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # as above
        await context.read()
        await context.abort(grpc.StatusCode.DATA_LOSS, "told so")

    async def RenewCertificate(self, request: Any, context: Any) -> Any:
        return agent_service_pb2.RenewCertificateResponse()

    async def FetchMetadata(self, request: Any, context: Any) -> Any:
        return agent_service_pb2.FetchMetadataResponse(content=request.file_name.encode())

    async def DownloadArtefact(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield agent_service_pb2.DownloadArtefactResponse(offset=request.offset)


class Enrollment(enrollment_service_pb2_grpc.EnrollmentServiceServicer):
    """Lets everyone in."""

    async def Enroll(self, request: Any, context: Any) -> Any:
        return enrollment_service_pb2.EnrollResponse(
            spiffe_id=f"spiffe://{TRUST_DOMAIN}/agent/{request.agent_id}"
        )


@dataclass
class Doors:
    """A running server and all that is needed to speak to it."""

    agents_root: Root
    operators_root: Root
    listeners: Listeners
    ports: Ports
    metrics: Metrics
    clock: Clock
    denied: set[str]
    tokens: Tokens
    agents: Agents
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def root_of(self, role: str) -> Root:
        return self.agents_root if role == "agent" else self.operators_root

    def identity(self, role: str, name: str = "one") -> Identity:
        return issue_client(self.root_of(role), role, name, now=datetime.now(UTC))

    def channel(
        self, role: str, identity: Identity | None = None, port: int | None = None
    ) -> grpc.aio.Channel:
        """Connect as ``role`` to the door of its kind, or to ``port``, trusting that door's root."""
        identity = identity or self.identity(role)
        port = port or (self.ports.agents if role == "agent" else self.ports.admin)
        root = self.agents_root if port in (self.ports.agents, self.ports.enrollment) else self.operators_root
        credentials = grpc.ssl_channel_credentials(root.pem, identity.key_pem, identity.chain_pem)
        return self._opened(grpc.aio.secure_channel(f"{HOST}:{port}", credentials, _NO_SHARING))

    def anonymous(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.agents_root.pem)
        return self._opened(
            grpc.aio.secure_channel(f"{HOST}:{self.ports.enrollment}", credentials, _NO_SHARING)
        )

    def plain(self, port: int) -> grpc.aio.Channel:
        return self._opened(grpc.aio.insecure_channel(f"{HOST}:{port}", _NO_SHARING))

    def tokens_stub(self, role: str = "operator", identity: Identity | None = None) -> Any:
        return enrollment_token_service_pb2_grpc.EnrollmentTokenServiceStub(self.channel(role, identity))

    def agents_stub(self, identity: Identity | None = None) -> Any:
        return agent_service_pb2_grpc.AgentServiceStub(self.channel("agent", identity))

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def _opened(self, channel: grpc.aio.Channel) -> grpc.aio.Channel:
        self.channels.append(channel)
        return channel


_NO_SHARING = (("grpc.use_local_subchannel_pool", 1),)


def material(agents_root: Root, operators_root: Root) -> Material:
    now = datetime.now(UTC)
    agents, admin = issue_server(agents_root, now=now), issue_server(operators_root, now=now)
    return Material(
        agents=TlsMaterial(agents.key_pem, agents.chain_pem, agents_root.pem),
        admin=TlsMaterial(admin.key_pem, admin.chain_pem, operators_root.pem),
        enrollment=TlsMaterial(agents.key_pem, agents.chain_pem, None),
    )


@asynccontextmanager
async def opened(
    *,
    clock: Clock | None = None,
    limits: Limits | None = None,
    ports: Ports | None = None,
    methods: Mapping[str, Method] = METHODS,
) -> AsyncIterator[Doors]:
    """Open all doors, and close them with every channel."""
    now = datetime.now(UTC)
    agents_root, operators_root = make_root("Agents", now=now), make_root("Operators", now=now)
    metrics, denied, clock = Metrics(), set[str](), clock or SystemClock()
    listeners = Listeners(
        HOST,
        HOST,
        ports or Ports(0, 0, 0, 0),
        material=material(agents_root, operators_root),
        trust_domain=TRUST_DOMAIN,
        clock=clock,
        metrics=metrics,
        denied=denied.__contains__,
        limits=limits,
        methods=methods,
    )
    tokens, agents = Tokens(), Agents()
    enrollment_token_service_pb2_grpc.add_EnrollmentTokenServiceServicer_to_server(
        tokens, listeners.admin.server
    )
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, listeners.agents.server)
    enrollment_service_pb2_grpc.add_EnrollmentServiceServicer_to_server(
        Enrollment(), listeners.enrollment.server
    )
    bound = await listeners.open()
    await listeners.health.serving()
    doors = Doors(agents_root, operators_root, listeners, bound, metrics, clock, denied, tokens, agents)
    try:
        yield doors
    finally:
        for channel in doors.channels:
            await channel.close()
        await listeners.close(timedelta())


@dataclass(frozen=True)
class Refusal:
    """What a client sees of a refused call."""

    code: grpc.StatusCode
    text: str
    reason: str
    metadata: dict[str, str]
    fields: dict[str, str]
    retry_after: timedelta | None


async def refusal(call: Awaitable[Any]) -> Refusal:
    """Await ``call``, which must fail, and read its status."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError(f"not refused, answered {answer!r}")


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    status: Any = rpc_status.from_call(cast("grpc.Call", error)) or status_pb2.Status()
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for message in (info, bad, retry):
            detail.Unpack(message)
    assert info.domain in ("", errors.DOMAIN)
    return Refusal(
        code=error.code(),
        text=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        fields={v.field: v.description for v in bad.field_violations},
        retry_after=retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None,
    )


__all__ = [
    "Doors",
    "Refusal",
    "ServiceError",
    "ShiftedClock",
    "material",
    "opened",
    "read_refusal",
    "refusal",
]
