"""ServerService: what the server tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import server_service_pb2, server_service_pb2_grpc

from controlplane import VERSION
from controlplane.clock import Clock, to_micros
from controlplane.transport.context import current_caller
from controlplane.transport.messages import timestamp

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays as it is for as long as a process serves."""

    trust_domain: str
    max_agents: int
    schema_version: str
    start_time: datetime


class ServerInfoServicer(server_service_pb2_grpc.ServerServiceServicer):
    """Answers with the facts, the time, and how many sessions there are."""

    def __init__(self, facts: Facts, clock: Clock, sessions: Callable[[], int]) -> None:
        self._facts = facts
        self._clock = clock
        self._sessions = sessions

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        server_service_pb2_grpc.add_ServerServiceServicer_to_server(self, server)

    async def GetServerInfo(  # noqa: N802 # the contract's name
        self, request: server_service_pb2.GetServerInfoRequest, context: Context
    ) -> server_service_pb2.GetServerInfoResponse:
        """Say what this server is, and whom it takes the caller for."""
        return server_service_pb2.GetServerInfoResponse(
            version=VERSION,
            trust_domain=self._facts.trust_domain,
            server_time=timestamp(to_micros(self._clock.now())),
            start_time=timestamp(to_micros(self._facts.start_time)),
            schema_version=self._facts.schema_version,
            max_agents=self._facts.max_agents,
            sessions=self._sessions(),
            caller=current_caller().spiffe_id,
        )
