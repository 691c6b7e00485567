"""An agent that comes back: the reference agent's backoff and RetryInfo, around a bare session."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import agent_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import work_pb2

from agent_sim.protocol.backoff import Backoff, to_wait
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.connection import agent_channel
from agent_sim.protocol.failures import Failure, failure_of
from agent_sim.protocol.identity import AgentIdentity

_DEFAULTS = AgentConfig(agent_version="bench")


class ReturningAgent:
    """Holds a session and comes back whenever it is lost.

    ``welcomed`` hears of each Welcome, ``refused`` of each answer of a server that did not welcome it.
    """

    def __init__(
        self,
        identity: AgentIdentity,
        address: str,
        welcomed: Callable[[str], None],
        refused: Callable[[str], None],
    ) -> None:
        self.agent_id = identity.agent_id
        self._identity = identity
        self._address = address
        self._welcomed = welcomed
        self._refused = refused
        self._random = random.Random(identity.agent_id)  # noqa: S311 # no secret
        self._channel: grpc.aio.Channel | None = None
        self._nonce = b""
        self._interval = 10.0
        self._sequence = 0
        self.calm()

    def calm(self) -> None:
        """Begin the backoff anew, as after a stable minute."""
        self._backoff = Backoff(
            _DEFAULTS.backoff_base, _DEFAULTS.backoff_cap, _DEFAULTS.stable_after, self._random
        )

    async def run(self) -> None:
        """Come, and come back, until cancelled."""
        while True:
            failure = await self._session()
            if failure is not None and failure.reason:
                self._refused(failure.name)
            told = failure.retry_after if failure is not None else None
            if failure is not None and told is None:
                await self._drop()
            delay = self._backoff.next_delay(time.monotonic())
            wait = to_wait(told, delay)
            if wait is not delay:
                wait *= self._random.uniform(1, 1.1)
            await asyncio.sleep(wait.total_seconds())

    async def _session(self) -> Failure | None:
        """Hold a session; returns how it failed, None where the server ended it in order."""
        if self._channel is None:
            self._channel = agent_channel(self._address, self._identity)
        call: Any = pb2_grpc.AgentServiceStub(self._channel).Heartbeat()
        beats: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(_DEFAULTS.welcome_timeout.total_seconds()):
                await call.write(pb2.HeartbeatRequest(hello=self._hello()))
                response = await call.read()
            if response is not grpc.aio.EOF and response.HasField("welcome"):
                self._greeted(response.welcome)
                beats = asyncio.get_running_loop().create_task(self._beat(call))
                while await call.read() is not grpc.aio.EOF:
                    pass
            if await call.code() is grpc.StatusCode.OK:
                return None
            return failure_of(await _error(call))
        except grpc.aio.AioRpcError as error:
            return failure_of(error)
        except asyncio.InvalidStateError:
            return failure_of(await _error(call))
        except TimeoutError:
            return Failure(grpc.StatusCode.UNKNOWN)
        finally:
            if beats is not None:
                beats.cancel()
            call.cancel()

    def _hello(self) -> pb2.Hello:
        return pb2.Hello(
            protocol_version=1,
            agent_version="bench",
            boot_id="boot",
            journal_id=f"journal-{self.agent_id}",
            session_nonce=self._nonce,
            task_kinds=["echo"],
            host=work_pb2.HostFacts(hostname=f"{self.agent_id}.bench", os_family="linux"),
        )

    def _greeted(self, welcome: pb2.Welcome) -> None:
        self._nonce = welcome.next_nonce
        self._interval = welcome.heartbeat_interval.ToTimedelta().total_seconds()
        self._sequence = 0
        self._backoff.connected(time.monotonic())
        self._welcomed(self.agent_id)

    async def _beat(self, call: Any) -> None:
        while True:
            await asyncio.sleep(self._interval * self._random.uniform(1, 1.1))
            self._sequence += 1
            try:
                await call.write(pb2.HeartbeatRequest(beat=pb2.Beat(sequence=self._sequence)))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # whoever reads hears why

    async def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


async def _error(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        details=await call.details(),
    )


class Returners:
    """Many of them, and when each was welcomed, by the machine's monotonic clock."""

    def __init__(self) -> None:
        self._agents: list[ReturningAgent] = []
        self._running: set[asyncio.Task[None]] = set()
        self._welcomes: dict[str, float] = {}
        self._refusals = 0
        self._arrived = asyncio.Event()

    async def begin(self, identities: list[AgentIdentity], address: str, spread: float) -> None:
        """Let agents come, evenly over ``spread`` seconds, and wait until all are welcomed."""
        loop = asyncio.get_running_loop()
        for identity in identities:
            agent = ReturningAgent(identity, address, self._welcomed, self._refused)
            self._agents.append(agent)
            self._running.add(loop.create_task(agent.run()))
            await asyncio.sleep(spread / len(identities))
        await self._all()

    def forget(self) -> None:
        """Forget who was welcomed, before the server is killed, and let every backoff begin anew."""
        self._welcomes.clear()
        self._refusals = 0
        for agent in self._agents:
            agent.calm()

    async def returned(self, within: timedelta) -> tuple[list[float], int]:
        """Wait until all are back; returns when each was, in order, and how often one was refused."""
        async with asyncio.timeout(within.total_seconds()):
            await self._all()
        return sorted(self._welcomes.values()), self._refusals

    async def _all(self) -> None:
        while len(self._welcomes) < len(self._agents):
            self._arrived.clear()
            await self._arrived.wait()

    def _welcomed(self, agent_id: str) -> None:
        self._welcomes.setdefault(agent_id, time.monotonic())
        self._arrived.set()

    def _refused(self, _reason: str) -> None:
        self._refusals += 1
