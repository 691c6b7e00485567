"""How agents of some profiles treat their streams badly: wrapped around the client, not inside the engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import grpc
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc

_SLOW_READ = 0.5
"""Seconds by which a slow reader reads each message late."""
_FLAKY_MEAN = 30.0
"""Mean seconds between two losses of a flaky agent's connection."""

if TYPE_CHECKING:
    Stub = agent_service_pb2_grpc.AgentServiceAsyncStub


class _SlowCall:
    """A stream whose every message is read late."""

    def __init__(self, call: Any, delay: float) -> None:
        self._call = call
        self._delay = delay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def read(self) -> Any:
        await asyncio.sleep(self._delay)
        return await self._call.read()


class _Freezer:
    """One agent's state of being hung; shared by all its streams."""

    def __init__(self) -> None:
        self.frozen = False


class _FreezingCall:
    """A stream that stands still, both ways, from the agent's first assignment on."""

    def __init__(self, call: Any, freezer: _Freezer) -> None:
        self._call = call
        self._freezer = freezer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def read(self) -> Any:
        if self._freezer.frozen:
            await self._call.code()
        message = await self._call.read()
        if isinstance(message, agent_service_pb2.TasksResponse) and message.HasField("assignment"):
            # The assignment itself is still taken and accepted: work begun, and then silence.
            asyncio.get_running_loop().call_later(0.2, setattr, self._freezer, "frozen", True)
        return message

    async def write(self, message: Any) -> None:
        if self._freezer.frozen:
            await self._call.code()
        await self._call.write(message)


class _WrappingStub:
    """A client of AgentService whose streams are wrapped."""

    def __init__(self, channel: grpc.aio.Channel, wrap: Callable[[str, Any], Any]) -> None:
        self._stub: Stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        self._wrap = wrap
        self.RenewCertificate = self._stub.RenewCertificate
        self.FetchMetadata = self._stub.FetchMetadata
        self.DownloadArtefact = self._stub.DownloadArtefact

    def Heartbeat(self) -> Any:  # noqa: N802 - the contract's name
        """Open the stream, wrapped."""
        return self._wrap("Heartbeat", self._stub.Heartbeat())

    def Tasks(self) -> Any:  # noqa: N802 - the contract's name
        """Open the stream, wrapped."""
        return self._wrap("Tasks", self._stub.Tasks())

    def Telemetry(self) -> Any:  # noqa: N802 - the contract's name
        """Open the stream, wrapped."""
        return self._wrap("Telemetry", self._stub.Telemetry())


def slow_reading(channel: grpc.aio.Channel) -> Stub:
    """Make a client that reads each message late."""
    return cast("Stub", _WrappingStub(channel, lambda _, call: _SlowCall(call, _SLOW_READ)))


def freezing() -> Callable[[grpc.aio.Channel], Stub]:
    """Make what makes the clients of one agent that hangs from its first assignment on."""
    freezer = _Freezer()

    def make(channel: grpc.aio.Channel) -> Stub:
        return cast("Stub", _WrappingStub(channel, lambda _, call: _FreezingCall(call, freezer)))

    return make


def dropping(rng: random.Random) -> Callable[[grpc.aio.Channel], Stub]:
    """Make what makes the clients of one agent that loses its connection now and then."""

    def wrap(method: str, call: Any) -> Any:
        if method == "Heartbeat":
            timer = asyncio.get_running_loop().call_later(rng.expovariate(1 / _FLAKY_MEAN), call.cancel)
            call.add_done_callback(lambda _: timer.cancel())
        return call

    def make(channel: grpc.aio.Channel) -> Stub:
        return cast("Stub", _WrappingStub(channel, wrap))

    return make
