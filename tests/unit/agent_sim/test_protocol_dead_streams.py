"""A stream ends although a write to its call never does: so gRPC leaves it where a connection goes early."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2

from agent_sim.protocol.attempts import Attempts
from agent_sim.protocol.batches import BatchSize
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.journal import MemoryJournal
from agent_sim.protocol.streams import Outlet, StreamFailedError
from agent_sim.protocol.tasks_stream import TasksStream
from agent_sim.protocol.telemetry_stream import TelemetryStream


class DeadCall:
    """A call whose connection went before its metadata was sent: reads fail, writes wait for ever."""

    def __init__(self) -> None:
        self.writing = asyncio.Event()

    async def read(self) -> Any:
        await self.writing.wait()
        metadata = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, metadata, metadata)

    async def write(self, _: object) -> None:
        self.writing.set()
        await asyncio.get_running_loop().create_future()

    def done(self) -> bool:
        return True


@pytest.fixture
def context() -> EngineContext:
    config = SimpleNamespace(concurrency=4)
    return cast(EngineContext, SimpleNamespace(journal=MemoryJournal(), config=config))


async def test_a_telemetry_stream_ends(context: EngineContext) -> None:
    stub: Any = SimpleNamespace(Telemetry=DeadCall)
    stream = TelemetryStream(context, stub, agent_service_pb2.Welcome(), BatchSize())
    with pytest.raises(StreamFailedError):
        await asyncio.wait_for(stream.serve(), 30)


async def test_a_tasks_stream_ends(context: EngineContext) -> None:
    stub: Any = SimpleNamespace(Tasks=DeadCall)
    stream = TasksStream(context, Attempts(context), stub, agent_service_pb2.Welcome())
    with pytest.raises(StreamFailedError):
        await asyncio.wait_for(stream.serve(), 30)


async def test_an_outlet_that_is_abandoned_leaves_no_task() -> None:
    call: Any = DeadCall()
    outlet: Outlet[agent_service_pb2.HeartbeatRequest] = Outlet(call)
    before = asyncio.all_tasks()
    outlet.send(agent_service_pb2.HeartbeatRequest())
    await call.writing.wait()
    outlet.abandon()
    (left,) = asyncio.all_tasks() - before
    with pytest.raises(asyncio.CancelledError):
        await left
