"""The Telemetry stream: batches in, acknowledged cumulatively after their commit."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import work_pb2

from controlplane import failpoints
from controlplane.clock import Clock, to_micros
from controlplane.errors import InvalidArgument, ServiceError
from controlplane.sessions import reading
from controlplane.sessions.limits import SessionPolicy
from controlplane.sessions.registry import Registry, Session, replaced
from controlplane.sessions.rules.replay import LEAST_BUDGET, Pace
from controlplane.sessions.writing import uncancel, write
from controlplane.storage.writer import Writer
from controlplane.telemetry.operations import BatchStored, StoreBatch
from controlplane.telemetry.records import PointRecord
from controlplane.telemetry.rules import encode_attributes
from controlplane.telemetry.service import TelemetryService
from controlplane.transport.context import current_caller
from controlplane.transport.patience import Patience

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


class TelemetryStreams:
    """Serves the Telemetry stream of every agent of this process."""

    def __init__(
        self,
        registry: Registry,
        writer: Writer,
        telemetry: TelemetryService,
        clock: Clock,
        policy: SessionPolicy,
        pace: Pace,
    ) -> None:
        self._pace = pace
        self._registry = registry
        self._writer = writer
        self._telemetry = telemetry
        self._clock = clock
        self._policy = policy
        self._opening = Patience(policy.first_message_after)
        self._writing = Patience(policy.slow_reader_after)

    async def serve(self, context: Context) -> None:
        """Serve one stream; raises the ``ServiceError`` that ends it as refused."""
        opening = await reading.first(context, "open", self._opening)
        caller = current_caller()
        session = self._registry.live(caller.name, caller.serial, opening.session_epoch)
        structlog.contextvars.bind_contextvars(session=session.epoch)
        stream = _Open()
        if session.telemetry is not None:
            session.telemetry.end(replaced(session.agent_id))
        session.telemetry = stream
        self._pace.streams += 1
        try:
            await self._batches(context, session, opening.previous_session_epoch)
        except asyncio.CancelledError:
            if not stream.ended:
                raise
            uncancel()
        finally:
            stream.ended = True
            self._pace.streams -= 1
            if session.telemetry is stream:
                session.telemetry = None
        if stream.error is not None:
            raise stream.error

    async def _batches(self, context: Context, session: Session, previous: int) -> None:
        standing = await self._telemetry.standing(session.agent_id, session.journal_id, previous)
        opened = pb2.TelemetryOpened(
            last_sequence=standing.last_sequence,
            budget=self._budget(),
            previous_last_sequence=standing.previous,
        )
        opened.linger.FromTimedelta(self._policy.telemetry_linger)
        await self._send(context, pb2.TelemetryResponse(opened=opened))
        # What is read next is paid for first, so that a hundred streams which open at once are read in
        # turn: reading a batch keeps the loop from everyone's heartbeats for a moment.
        paid = LEAST_BUDGET
        await self._turn(paid)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if message.WhichOneof("message") != "batch":
                    raise InvalidArgument("PROTOCOL_VIOLATION", "message: open comes only once")
                failpoints.hit("telemetry.after_receive")
                batch = message.batch
                stored: BatchStored = await self._writer.submit(self._operation(session, batch))
                failpoints.hit("telemetry.after_commit")
                acknowledged = pb2.TelemetryAcknowledged(
                    last_sequence=stored.last_sequence, budget=self._budget()
                )
                await self._send(context, pb2.TelemetryResponse(acknowledged=acknowledged))
                failpoints.hit("telemetry.after_acknowledge")
                owed, paid = len(batch.points) - paid, 0
                await self._turn(owed)
        finally:
            self._pace.owe(-paid, monotonic())

    async def _turn(self, points: int) -> None:
        """Wait until ``points`` more may be taken in by this process."""
        wait = self._pace.owe(points, monotonic())
        if wait > 0:
            await asyncio.sleep(wait)

    def _budget(self) -> int:
        return self._pace.budget(self._policy.telemetry_budget)

    async def _send(self, context: Context, response: pb2.TelemetryResponse) -> None:
        await write(context, response, self._writing)

    def _operation(self, session: Session, batch: pb2.TelemetryBatch) -> StoreBatch:
        if batch.journal_id != session.journal_id:
            raise InvalidArgument(
                "PROTOCOL_VIOLATION",
                f"batch.journal_id: {batch.journal_id!r} is not the journal that Hello named; "
                "say Hello again after a change of journal",
            )
        points = tuple([_record(point) for point in batch.points])
        now = to_micros(self._clock.now())
        return StoreBatch(
            session.agent_id,
            session.epoch,
            batch.journal_id,
            batch.first_sequence,
            batch.dropped,
            points,
            now,
        )


def _record(point: work_pb2.TelemetryPoint) -> PointRecord:
    time = point.time
    # The library's own conversion costs more than all the rest.
    micros = time.seconds * 1_000_000 + time.nanos // 1_000
    return PointRecord(point.metric, micros, point.value, encode_attributes(point.attributes))


class _Open:
    """An open stream, as its session holds it."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.ended = False
        self.error: ServiceError | None = None

    def end(self, error: ServiceError | None) -> None:
        """End the stream soon; with ``error``, as refused."""
        if not self.ended:
            self.ended = True
            self.error = error
            if self._task is not None:
                self._task.cancel()
