"""A running server as tests see it from outside: its folder, its ports, its clients, its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from fleetwright.v1 import enrollment_service_pb2, enrollment_service_pb2_grpc, enrollment_token_service_pb2
from prometheus_client.parser import text_string_to_metric_families

from agent_sim.protocol.identity import (
    AgentIdentity,
    certificate_signing_request,
    generate_key,
    identity_from_certificate,
)
from controlplane.transport.listeners import Ports
from controlplane.trust.layout import AGENTS_ROOT, OPERATORS_ROOT, Layout
from tests.support.admin import OPTIONS, Admin, operator_channel
from tests.support.agents import RawAgent
from tests.support.folders import tables
from tests.support.streams import PATIENCE

HOST = "127.0.0.1"


@dataclass
class Site:
    """Where a server is, and clients to it; ``close`` closes all of them."""

    folder: Path
    ports: Ports
    _closing: list[Any] = field(default_factory=list)

    @property
    def agents_root(self) -> bytes:
        """The root that agents trust, PEM."""
        return (Layout(self.folder).trust / f"{AGENTS_ROOT}.pem").read_bytes()

    @property
    def operators_root(self) -> bytes:
        """The root that administrators trust, PEM."""
        return (Layout(self.folder).trust / f"{OPERATORS_ROOT}.pem").read_bytes()

    def admin(self, identity: Path | None = None) -> Admin:
        """Return a new administrator, by default the first operator."""
        folder = identity or Layout(self.folder).identity("operator", "admin")
        channel = operator_channel(f"{HOST}:{self.ports.admin}", folder)
        self._closing.append(channel)
        return Admin(channel)

    def enrollment(self) -> Any:
        """Return a new stub of EnrollmentService."""
        credentials = grpc.ssl_channel_credentials(self.agents_root)
        channel = grpc.aio.secure_channel(f"{HOST}:{self.ports.enrollment}", credentials, OPTIONS)
        self._closing.append(channel)
        return enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)

    async def enroll(self, agent_id: str, join_token: str, stub: Any = None) -> RawAgent:
        """Enrol an agent."""
        identity = await enroll(stub or self.enrollment(), agent_id, join_token)
        agent = RawAgent(identity, f"{HOST}:{self.ports.agents}")
        self._closing.append(agent)
        return agent

    async def metric(self, name: str, **labels: str) -> float:
        """Return the value of one sample of /metrics, 0 where there is none."""
        text = (await http_get(self.ports.health, "/metrics"))[1]
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    async def refusals(self, reason: str) -> float:
        """Return how many refusals of ``reason`` the server has counted."""
        return await self.metric("fleetwright_refused_total", reason=reason)

    @asynccontextmanager
    async def nothing_changes(
        self, reason: str = "", times: int = 1, ignoring: tuple[str, ...] = ()
    ) -> AsyncIterator[None]:
        """Check that the block changes no row, is counted as ``reason``, and that the server goes on.

        ``ignoring`` names tables that may change: ``agents`` where the end of a stream is a loss.
        """
        before, counted = tables(self.folder, ignoring), await self.refusals(reason)
        yield
        assert tables(self.folder, ignoring) == before
        if reason:
            # The caller hears of a refusal a moment before it is counted.
            async with asyncio.timeout(PATIENCE):
                while await self.refusals(reason) < counted + times:
                    pass
            assert await self.refusals(reason) == counted + times
        await self.admin().tokens.ListEnrollmentTokens(
            enrollment_token_service_pb2.ListEnrollmentTokensRequest()
        )

    async def close(self) -> None:
        """Close every client."""
        for client in self._closing:
            await client.close()


async def enroll(stub: Any, agent_id: str, join_token: str) -> AgentIdentity:
    """Enrol with a fresh key."""
    key = generate_key()
    request = enrollment_service_pb2.EnrollRequest(
        join_token=join_token,
        agent_id=agent_id,
        certificate_signing_request=certificate_signing_request(key, agent_id),
    )
    answer = await stub.Enroll(request)
    return identity_from_certificate(agent_id, answer.spiffe_id, key, answer.certificate, [])


async def http_get(port: int, path: str) -> tuple[int, str]:
    """Get a page of the health listener; return status and body. Raises ``OSError``."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        return int(head.split(" ", 2)[1]), body
    finally:
        writer.close()
