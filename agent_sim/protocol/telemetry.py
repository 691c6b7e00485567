"""Telemetry: sampled into the journal at all times, sent when a session can take it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc, work_pb2

from agent_sim.protocol.batches import REFUSED_FOR_GOOD, BatchSize, named_points
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.demand import OnDemand
from agent_sim.protocol.errors import JournalError
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.streams import StreamFailedError
from agent_sim.protocol.telemetry_stream import TelemetryStream

log = logging.getLogger(__name__)

_DEFAULT_INTERVAL = 60.0
"""Seconds between samplings where the server sets none."""
RESERVE_METRIC = "agent.journal_reserve_ratio"
"""1 where the journal has all the space that it keeps for results; less: the host's disk is full."""
SET_ASIDE_METRIC = "agent.journal_set_aside_count"
"""How many damaged journals stand beside the agent's own; said once by each process, where there are any."""
_FIRST_SAMPLE_WITHIN = 5.0
"""Seconds: a fleet that starts at one moment does not report at one moment."""


class Sampler:
    """Measures at the interval of the last Welcome, connected or not."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._interval: float | None = None
        self._reserve_share = 1.0
        self._told_set_aside = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.on_points: Callable[[], None] | None = None

    def set_interval(self, interval: timedelta) -> None:
        """Measure so often from now on; the first call begins."""
        begun = self._interval is not None
        self._interval = interval.total_seconds() or _DEFAULT_INTERVAL
        if not begun:
            self._schedule(self._context.rng.uniform(0.0, min(self._interval, _FIRST_SAMPLE_WITHIN)))

    async def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _schedule(self, delay: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._sample())

    async def _sample(self) -> None:
        try:
            points = [*await self._context.host.sample(), *self._reserve_points(), *self._set_aside_points()]
            if points:
                dropped = await self._context.journal.append_points(points)
                if dropped:
                    self._context.observer.points_dropped(dropped)
                if self.on_points is not None:
                    self.on_points()
        except JournalError as error:
            self._context.fail(error)
        except Exception:
            log.exception("measuring failed; the next one is tried at its time")
        self._schedule(self._context.jittered(self._interval or 1.0))

    def _reserve_points(self) -> list[work_pb2.TelemetryPoint]:
        """Say how much of the journal's reserve is left while it is not whole, and once when it is again."""
        share = self._context.journal.reserve_share
        before, self._reserve_share = self._reserve_share, share
        if share == before == 1.0:
            return []
        return [self._point(RESERVE_METRIC, share)]

    def _set_aside_points(self) -> list[work_pb2.TelemetryPoint]:
        """Say once that journals were damaged: what was in them, nobody else tells of."""
        count = 0 if self._told_set_aside else self._context.journal.set_aside
        self._told_set_aside = True
        return [self._point(SET_ASIDE_METRIC, count)] if count else []

    def _point(self, metric: str, value: float) -> work_pb2.TelemetryPoint:
        point = work_pb2.TelemetryPoint(metric=metric, value=value)
        point.time.FromDatetime(self._context.clock.now())
        return point


class Telemetry:
    """The Telemetry stream of a session, opened when points wait."""

    def __init__(
        self,
        context: EngineContext,
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub,
        welcome: agent_service_pb2.Welcome,
        on_stale: Callable[[Failure], None],
    ) -> None:
        self._context = context
        self._stub = stub
        self._welcome = welcome
        self._stream: TelemetryStream | None = None
        self._size = BatchSize()
        self._demand = OnDemand(context, self._serve, on_stale)

    def points_wait(self) -> None:
        """Send what waits, opening the stream where it is not open."""
        if self._stream is not None and not self._stream.closing:
            self._stream.points_wait()
        else:
            self._demand.want()

    async def close(self, grace: timedelta) -> None:
        """Let what is under way be acknowledged, and end the stream."""
        if self._stream is not None:
            self._stream.half_close()
        await self._demand.close(grace)

    async def _serve(self) -> bool:
        stream = self._stream = TelemetryStream(self._context, self._stub, self._welcome, self._size)
        try:
            await stream.serve()
        except StreamFailedError as error:
            if error.failure.name not in REFUSED_FOR_GOOD:
                raise
            if stream.refused_batch is None:
                if self._size.alone:
                    raise
                self._size.alone = True
                return True
            await self._refused(error.failure, *stream.refused_batch)
            return True
        finally:
            self._stream = None
        if self._context.journal.queued_points:
            self._demand.want()
        return False

    async def _refused(self, failure: Failure, first_sequence: int, count: int) -> None:
        """Drop the points that a refusal is for, or halve the batch that they are in."""
        observer = self._context.observer
        observer.failed(failure.name, failure.message)
        numbers = named_points(failure.fields, first_sequence, count)
        if not numbers and self._size.refused(count):
            numbers = [first_sequence]
        if numbers and (dropped := await self._context.journal.drop_points(numbers)):
            observer.points_refused(dropped, f"{failure.name}: {failure.message}")
