"""One session: a channel, its lifeline, and the streams that it carries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, timedelta

import grpc
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc

from agent_sim.protocol.attempts import Attempts
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.endings import Cause, Ending
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.lifeline import Lifeline
from agent_sim.protocol.telemetry import Sampler, Telemetry
from agent_sim.protocol.work import Work


class Session:
    """Lives from Hello to the end of its Heartbeat stream; the channel may outlive it."""

    def __init__(
        self,
        context: EngineContext,
        attempts: Attempts,
        sampler: Sampler,
        channel: grpc.aio.Channel,
        on_welcome: Callable[[Session], None],
    ) -> None:
        self._context = context
        self._attempts = attempts
        self._sampler = sampler
        self._on_welcome = on_welcome
        self._wanted_ending: Ending | None = None
        self._winding_down: asyncio.Task[None] | None = None
        self._work: Work | None = None
        self._telemetry: Telemetry | None = None
        self.stub: agent_service_pb2_grpc.AgentServiceAsyncStub = context.make_stub(channel)
        self._lifeline = Lifeline(context, self.stub, self._welcomed, self._work_available, self._reconnect)

    @property
    def welcomed(self) -> bool:
        """Whether the server has taken this session."""
        return self._work is not None

    async def run(self) -> Ending:
        """Say Hello, hold the session to its end and return how it ended. Raises JournalError."""
        try:
            ending = await self._lifeline.hold()
        finally:
            # Without a lifeline the epoch is dead: what the streams have not told goes into the next session.
            await self._close_streams(timedelta(0))
            if self._winding_down is not None:
                self._winding_down.cancel()
                await asyncio.gather(self._winding_down, return_exceptions=True)
        ending = self._wanted_ending or ending
        if self.welcomed:
            self._context.observer.disconnected(ending.name)
        return ending

    def end(self, ending: Ending, goodbye: str | None) -> None:
        """End in order: results and batches under way first, then Goodbye where given, then the lifeline."""
        if self._wanted_ending is None:
            self._wanted_ending = ending
            self._winding_down = asyncio.get_running_loop().create_task(self._wind_down(goodbye))

    async def _wind_down(self, goodbye: str | None) -> None:
        grace = self._context.config.stop_grace
        await self._close_streams(grace)
        self._lifeline.leave(goodbye, grace)

    async def _close_streams(self, grace: timedelta) -> None:
        closing = [stream.close(grace) for stream in (self._work, self._telemetry) if stream is not None]
        await asyncio.gather(*closing)

    def _welcomed(self, welcome: agent_service_pb2.Welcome) -> None:
        context = self._context
        if welcome.HasField("server_time"):
            context.server_time.welcomed(welcome.server_time.ToDatetime(UTC))
        self._work = Work(context, self._attempts, self.stub, welcome, self._stale)
        self._telemetry = Telemetry(context, self.stub, welcome, self._stale)
        context.observer.connected(welcome.session_epoch)
        self._on_welcome(self)
        self._sampler.on_points = self._telemetry.points_wait
        self._sampler.set_interval(welcome.telemetry_interval.ToTimedelta())
        self._work.begin()
        if context.journal.queued_points:
            self._telemetry.points_wait()

    def _work_available(self) -> None:
        if self._work is not None and self._wanted_ending is None:
            self._work.work_available()

    def _reconnect(self, ending: Ending) -> None:
        self.end(ending, None if ending.replaced else "asked to reconnect")

    def _stale(self, failure: Failure) -> None:
        if failure.session_stale:
            self.end(Ending(Cause.STALE, failure), None)
        else:
            self.end(Ending(Cause.FAILED, failure), None)
