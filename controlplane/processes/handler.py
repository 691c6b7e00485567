"""ServerService of the contract: what the server tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import server_service_pb2 as pb2
from fleetwright.v1 import server_service_pb2_grpc

from controlplane import VERSION
from controlplane.clock import Clock, to_micros
from controlplane.processes.service import Processes, ProcessRecord
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


class ServerHandler(server_service_pb2_grpc.ServerServiceServicer):
    """Answers with the facts, the time, how many sessions there are here, and which processes there are."""

    def __init__(self, facts: Facts, clock: Clock, sessions: Callable[[], int], processes: Processes) -> None:
        self._facts = facts
        self._clock = clock
        self._sessions = sessions
        self._processes = processes

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        server_service_pb2_grpc.add_ServerServiceServicer_to_server(self, server)

    async def GetServerInfo(
        self, request: pb2.GetServerInfoRequest, context: Context
    ) -> pb2.GetServerInfoResponse:
        """Say what this server is, and whom it takes the caller for."""
        return pb2.GetServerInfoResponse(
            version=VERSION,
            trust_domain=self._facts.trust_domain,
            server_time=timestamp(to_micros(self._clock.now())),
            start_time=timestamp(to_micros(self._facts.start_time)),
            schema_version=self._facts.schema_version,
            max_agents=self._facts.max_agents,
            sessions=self._sessions(),
            caller=current_caller().spiffe_id,
        )

    async def ListProcesses(
        self, request: pb2.ListProcessesRequest, context: Context
    ) -> pb2.ListProcessesResponse:
        """Say which processes there are."""
        return pb2.ListProcessesResponse(
            processes=[_process(record, left) for record, left in await self._processes.list()]
        )


def _process(record: ProcessRecord, left: timedelta) -> pb2.Process:
    process = pb2.Process(
        name=f"processes/{record.process_id}",
        roles=[pb2.ProcessRole.Value(f"PROCESS_ROLE_{role.upper()}") for role in record.roles],
        host=record.host,
        pid=record.pid,
        part=record.part.rpartition("/")[2],
        start_time=timestamp(record.start_time),
        addresses=record.addresses,
        version=record.version,
        restarts=record.restarts,
    )
    process.lease_left.FromTimedelta(left)
    return process
