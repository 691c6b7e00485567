"""A data folder made by ``init``, the room behind real mTLS doors, and clients that use the files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from fleetwright.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    enrollment_token_service_pb2,
    enrollment_token_service_pb2_grpc,
)

from certs.requests import SigningRequest, good
from controlplane.identity.handler import EnrollmentServicer, EnrollmentTokenServicer, IdentityServicer
from controlplane.identity.service import IdentityService
from controlplane.observability.metrics import Metrics
from controlplane.transport.context import current_caller
from controlplane.transport.listeners import Listeners, Material, Ports
from controlplane.transport.messages import issued_certificate
from controlplane.transport.tls import TlsMaterial
from controlplane.trust import setup
from controlplane.trust.layout import ServerTrust, load
from tests.unit.identity.world import TurnedClock, World, making_world

HOST = "127.0.0.1"
_NO_SHARING = (("grpc.use_local_subchannel_pool", 1),)


class Agents(agent_service_pb2_grpc.AgentServiceServicer):
    """Renews certificates, for those who are admitted."""

    def __init__(self, identity: IdentityService) -> None:
        self._identity = identity

    async def Heartbeat(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # never called
        raise NotImplementedError

    async def Tasks(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # never called
        raise NotImplementedError

    async def Telemetry(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # never called
        raise NotImplementedError

    async def FetchMetadata(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def DownloadArtefact(self, request: Any, context: Any) -> None:  # type: ignore[override] # never called
        raise NotImplementedError

    async def RenewCertificate(self, request: Any, context: Any) -> Any:
        await self._identity.admit(current_caller())
        issued = await self._identity.renew(current_caller(), request.certificate_signing_request)
        return agent_service_pb2.RenewCertificateResponse(certificate=issued_certificate(issued))


@dataclass
class Site:
    """A running server and its files."""

    folder: Path
    operator: Path
    trust: ServerTrust
    world: World
    ports: Ports
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def tokens(self, identity: Path | None = None) -> Any:
        """The tokens' service, as the owner of an identity folder calls it."""
        files = identity or self.operator
        credentials = grpc.ssl_channel_credentials(
            (files / "ca.pem").read_bytes(),
            (files / "key.pem").read_bytes(),
            (files / "cert.pem").read_bytes(),
        )
        channel = self._open(self.ports.admin, credentials)
        return enrollment_token_service_pb2_grpc.EnrollmentTokenServiceStub(channel)

    async def join_token(self, **wishes: Any) -> str:
        request = enrollment_token_service_pb2.CreateEnrollmentTokenRequest(**wishes)
        return str((await self.tokens().CreateEnrollmentToken(request)).join_token)

    async def enroll(self, join_token: str, request: SigningRequest, agent_id: str = "node-1") -> Any:
        credentials = grpc.ssl_channel_credentials(self.trust.agents.certificate_pem)
        stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(
            self._open(self.ports.enrollment, credentials)
        )
        return await stub.Enroll(
            enrollment_service_pb2.EnrollRequest(
                join_token=join_token, agent_id=agent_id, certificate_signing_request=request.der
            )
        )

    async def renew(self, former: SigningRequest, issued: Any, request: SigningRequest) -> Any:
        """Renew with the certificate ``issued`` for the key of ``former``."""
        chain = b"".join(_pem(der) for der in issued.chain)
        credentials = grpc.ssl_channel_credentials(_pem(issued.trust_bundle[0]), former.key_pem, chain)
        stub = agent_service_pb2_grpc.AgentServiceStub(self._open(self.ports.agents, credentials))
        message = agent_service_pb2.RenewCertificateRequest(certificate_signing_request=request.der)
        return (await stub.RenewCertificate(message)).certificate

    def _open(self, port: int, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        channel = grpc.aio.secure_channel(f"{HOST}:{port}", credentials, _NO_SHARING)
        self.channels.append(channel)
        return channel


@asynccontextmanager
async def opened_site(folder: Path) -> AsyncIterator[Site]:
    """Make a data folder, open the doors, and close them with every channel."""
    now = datetime.now(UTC)
    clock = TurnedClock(now)
    operator = setup.init(folder / "data", "fleetwright.local", [], now)
    trust = load(folder / "data")
    async with making_world(folder, trust.agents, clock, trust.operators) as world:
        listeners = Listeners(
            HOST,
            HOST,
            Ports(0, 0, 0, 0),
            material=_material(trust),
            trust_domain=trust.trust_domain,
            clock=clock,
            metrics=Metrics(),
            denied=world.identity.is_denied,
            seen=world.identity.administrators.seen,
        )
        _add_servicers(listeners, world)
        site = Site(folder / "data", operator, trust, world, await listeners.open())
        try:
            yield site
        finally:
            for channel in site.channels:
                await channel.close()
            await listeners.close(timedelta())


def _add_servicers(listeners: Listeners, world: World) -> None:
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(Agents(world.identity), listeners.agents.server)
    enrollment_service_pb2_grpc.add_EnrollmentServiceServicer_to_server(
        EnrollmentServicer(world.identity), listeners.enrollment.server
    )
    enrollment_token_service_pb2_grpc.add_EnrollmentTokenServiceServicer_to_server(
        EnrollmentTokenServicer(world.identity.tokens, world.clock), listeners.admin.server
    )
    IdentityServicer(world.identity.administrators, world.clock).add_to(listeners.admin.server)


def _material(trust: ServerTrust) -> Material:
    key = trust.server_key_pem
    return Material(
        agents=TlsMaterial(key, trust.agents_chain_pem, trust.agents.certificate_pem),
        admin=TlsMaterial(key, trust.operators_chain_pem, trust.operators.certificate_pem),
        enrollment=TlsMaterial(key, trust.agents_chain_pem, None),
    )


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


__all__ = ["Site", "good", "opened_site"]
