"""TelemetryService of the contract: proto in, service, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import telemetry_service_pb2 as pb2
from fleetwright.v1 import telemetry_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import work_pb2

from controlplane.telemetry.records import Choice, StoredPoint
from controlplane.telemetry.rules import decode_attributes
from controlplane.telemetry.service import TelemetryService
from controlplane.transport.messages import timestamp

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


class TelemetryHandler(pb2_grpc.TelemetryServiceServicer):
    """Serves TelemetryService."""

    def __init__(self, telemetry: TelemetryService) -> None:
        self._telemetry = telemetry

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_TelemetryServiceServicer_to_server(self, server)

    async def QueryTelemetry(
        self, request: pb2.QueryTelemetryRequest, context: Context
    ) -> pb2.QueryTelemetryResponse:
        """Read stored points, oldest first."""
        choice = Choice(
            agent_id=request.agent.removeprefix("agents/"),
            metric=request.metric,
            start=request.start_time.ToMicroseconds() if request.HasField("start_time") else None,
            end=request.end_time.ToMicroseconds() if request.HasField("end_time") else None,
        )
        page = await self._telemetry.query(choice, page_size=request.page_size, page_token=request.page_token)
        return pb2.QueryTelemetryResponse(
            points=[point_message(stored) for stored in page.points], next_page_token=page.next_page_token
        )

    async def WatchTelemetry(
        self, request: pb2.WatchTelemetryRequest, context: Context
    ) -> AsyncIterator[pb2.WatchTelemetryResponse]:
        """Send points as they are committed, until the caller leaves."""
        choice = Choice(agent_id=request.agent.removeprefix("agents/"), metric=request.metric)
        looks = self._telemetry.watch(choice, resume_token=request.resume_token)
        async with aclosing(looks):
            async for look in looks:
                yield pb2.WatchTelemetryResponse(
                    points=[point_message(stored) for stored in look.points], resume_token=look.resume_token
                )


def point_message(stored: StoredPoint) -> pb2.StoredPoint:
    """Return the contract's form of a stored point."""
    point = stored.point
    return pb2.StoredPoint(
        agent=f"agents/{stored.agent_id}",
        point=work_pb2.TelemetryPoint(
            metric=point.metric,
            time=timestamp(point.time),
            value=point.value,
            attributes=decode_attributes(point.attributes),
        ),
        receive_time=timestamp(stored.receive_time),
    )
