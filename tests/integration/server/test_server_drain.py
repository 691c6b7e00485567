"""How a server leaves: its port first, then its agents, spread over the window."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.in_process import serving
from tests.support.site import HOST


async def refused(port: int) -> None:
    """Wait until nobody listens on a port."""
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except ConnectionRefusedError:
            return
        writer.close()
        await asyncio.sleep(0.01)


async def test_the_ports_are_closed_before_anyone_is_sent_away(folder: Path) -> None:
    async with serving(folder, drain_window="3s", drain_grace="1s") as site:
        admin = site.admin()
        _, token = await admin.token(max_uses=3)
        sessions = [await (await site.enroll(f"node-{number}", token)).come() for number in range(3)]
        assert site.server is not None
        # The window begins only when the ports are closed, whoever looks.
        stopping = asyncio.create_task(site.server.stop())
        for port in (site.ports.agents, site.ports.enrollment):
            async with asyncio.timeout(10):
                await refused(port)
        # All but the first are told later, and live on meanwhile.
        await sessions[-1].beat()
        async with grpc.aio.insecure_channel(f"{HOST}:{site.ports.health}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await admin.agent("node-2")).session_epoch == sessions[-1].epoch
        for session in sessions:
            reconnect = await session.stream.until("reconnect")
            assert reconnect.reason == pb2.RECONNECT_REASON_DRAINING
            assert (await session.stream.ended())[0] is grpc.StatusCode.OK
        await stopping
