"""One Telemetry stream: batches out within the server's budget, cumulative acknowledgements in."""

from __future__ import annotations

import asyncio
from collections import deque

import grpc
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc, work_pb2

from agent_sim import failpoints
from agent_sim.protocol.batches import BatchSize
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.errors import JournalError, JournalFullError
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.streams import StreamFailedError, ended, read

_DEFAULT_MESSAGE_BYTES = 1024 * 1024
_DEFAULT_BATCH = 1000


class TelemetryStream:
    """Sends from where the server says it stands; so an overlap or a gap mends itself on the next stream.

    Invariants: never more than the budget is under way beyond what is
    acknowledged; points are forgotten only when they are acknowledged; numbers
    that the journal has dropped are declared in the next batch.
    """

    def __init__(
        self,
        context: EngineContext,
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub,
        welcome: agent_service_pb2.Welcome,
        size: BatchSize,
    ) -> None:
        self._context = context
        self._epoch = welcome.session_epoch
        self._size = size
        self._under_way: deque[tuple[int, int]] = deque()
        self._max_points = welcome.limits.max_batch_points or _DEFAULT_BATCH
        # Three quarters: the batch's own fields and the framing of each point come on top.
        self._max_bytes = (welcome.limits.max_message_bytes or _DEFAULT_MESSAGE_BYTES) * 3 // 4
        self._call = stub.Telemetry()
        self._acknowledged = 0
        self._sent = 0
        self._budget = 0
        self._linger = 0.0
        self._linger_timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None
        self._more = False
        self.closing = False

    async def serve(self) -> None:
        """Open the stream and serve it to its end. Raises StreamFailedError or JournalError."""
        try:
            self._sender = asyncio.get_running_loop().create_task(self._open())
            while (message := await read(self._call)) is not None:
                await self._hear(message)
        finally:
            self.closing = True
            self._cancel_linger()
            if not self._call.done():
                self._call.cancel()
            if self._sender is not None:
                await ended(self._sender)

    @property
    def refused_batch(self) -> tuple[int, int] | None:
        """First number and length of the batch that an end over what was sent is meant for, or None.

        Known only where one was under way: an acknowledgement may be lost with the end of its stream.
        """
        return self._under_way[0] if len(self._under_way) == 1 else None

    def points_wait(self) -> None:
        """Send what waits, as far as the budget allows."""
        self._more = True
        if self._sender is None and not self.closing:
            self._cancel_linger()
            self._sender = asyncio.get_running_loop().create_task(self._send())

    def half_close(self) -> None:
        """Send nothing more; acknowledgements of what is under way still come."""
        if not self.closing:
            self.closing = True
            if self._sender is None:
                self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _open(self) -> None:
        message = agent_service_pb2.TelemetryOpen(
            session_epoch=self._epoch, previous_session_epoch=self._context.journal.points_epoch
        )
        try:
            await self._call.write(agent_service_pb2.TelemetryRequest(open=message))
            if self.closing:
                await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.closing = True
        finally:
            self._sender = None
        if self._more:
            # The answer came before this task had ended.
            self.points_wait()

    async def _hear(self, message: agent_service_pb2.TelemetryResponse) -> None:
        if message.HasField("opened"):
            opened = message.opened
            self._linger = opened.linger.ToTimedelta().total_seconds()
            self._sent = opened.last_sequence
            known = opened.HasField("previous_last_sequence")
            previous = opened.previous_last_sequence if known else None
            self._context.observer.points_resumed(opened.last_sequence if previous is None else previous)
            try:
                count = await self._context.journal.resume_points(self._epoch, opened.last_sequence, previous)
            except JournalFullError as error:
                raise StreamFailedError(Failure(grpc.StatusCode.ABORTED, message=str(error))) from error
            self._stands_at(opened.last_sequence, opened.budget, count)
        elif message.HasField("acknowledged"):
            acknowledged = message.acknowledged
            self._context.observer.points_answered(acknowledged.last_sequence)
            failpoints.hit("agent.after_points")
            count = await self._context.journal.acknowledge_points(acknowledged.last_sequence)
            self._stands_at(acknowledged.last_sequence, acknowledged.budget, count)

    def _stands_at(self, last_sequence: int, budget: int, count: int) -> None:
        if count:
            self._context.observer.points_acknowledged(count)
        while self._under_way and sum(self._under_way[0]) <= last_sequence + 1:
            self._size.taken(self._under_way.popleft()[1])
        self._acknowledged = last_sequence
        self._sent = max(self._sent, last_sequence)
        self._budget = budget
        self.points_wait()

    async def _send(self) -> None:
        """Send batches until nothing waits or the budget is used up; the only writer after the open."""
        try:
            while self._more and not self.closing:
                self._more = False
                while await self._send_batch():
                    pass
            if self.closing:
                await self._call.done_writing()
            elif self._acknowledged == self._sent and not self._context.journal.queued_points:
                self._cancel_linger()
                self._linger_timer = asyncio.get_running_loop().call_later(self._linger, self.half_close)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.closing = True
        except JournalError as error:
            self._context.fail(error)
        finally:
            self._sender = None

    async def _send_batch(self) -> bool:
        room = self._acknowledged + self._budget - self._sent
        if room <= 0 or self.closing or (self._size.alone and self._under_way):
            return False
        journal = self._context.journal
        most = min(room, self._size.within(self._max_points))
        found = await journal.read_points(self._sent, most, self._max_bytes)
        if not found.points:
            return False
        batch = agent_service_pb2.TelemetryBatch(
            journal_id=journal.journal_id,
            first_sequence=found.first_sequence,
            dropped=found.first_sequence - self._sent - 1,
            points=[work_pb2.TelemetryPoint.FromString(point) for point in found.points],
        )
        self._sent = found.first_sequence + len(found.points) - 1
        self._under_way.append((found.first_sequence, len(found.points)))
        await self._call.write(agent_service_pb2.TelemetryRequest(batch=batch))
        failpoints.hit("agent.after_batch")
        self._context.observer.points_sent(len(found.points))
        return True

    def _cancel_linger(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
