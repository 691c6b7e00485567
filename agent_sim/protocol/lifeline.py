"""The Heartbeat stream: presence is this stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import grpc
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agent_sim import failpoints
from agent_sim.protocol.config import PROTOCOL_VERSION
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.endings import Cause, Ending
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.streams import Outlet, StreamFailedError, read

_DEFAULT_INTERVAL = 15.0
"""Seconds between beats where the server sets none."""
_HeartbeatOutlet = Outlet[agent_service_pb2.HeartbeatRequest]


class Lifeline:
    """Says Hello, beats until the stream ends, and says Goodbye when it is told to leave.

    The nonce of a Welcome is stored before anything else is done: an agent that
    fell in between shows the former one, and the server knows that it knows it.
    """

    def __init__(
        self,
        context: EngineContext,
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub,
        on_welcome: Callable[[agent_service_pb2.Welcome], None],
        on_work: Callable[[], None],
        on_reconnect: Callable[[Ending], None],
    ) -> None:
        self._context = context
        self._on_welcome = on_welcome
        self._on_work = on_work
        self._on_reconnect = on_reconnect
        self._call = stub.Heartbeat()
        self._outlet: _HeartbeatOutlet = Outlet(self._call)
        self._interval = 0.0
        self._sequence = 0
        self._sent_at: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._guard: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._leaving = False
        self._unanswered = False

    async def hold(self) -> Ending:
        """Hold the stream until it ends, and return how it ended. Raises JournalError."""
        try:
            await self._begin()
            while (message := await read(self._call)) is not None:
                self._hear(message)
            return Ending(Cause.CLOSED)
        except TimeoutError:
            return Ending(Cause.UNANSWERED)
        except StreamFailedError as error:
            if self._unanswered:
                return Ending(Cause.UNANSWERED)
            return Ending(Cause.FAILED, error.failure)
        finally:
            self._leaving = True
            self._cancel_timers()
            if not self._call.done():
                self._call.cancel()
            self._outlet.abandon()

    def leave(self, goodbye: str | None, grace: timedelta) -> None:
        """End the stream in order: Goodbye where a reason is given, half-close, cancel after ``grace``."""
        self._leaving = True
        self._cancel_timers()
        if goodbye is not None:
            message = agent_service_pb2.Goodbye(reason=goodbye[:256])
            self._outlet.send(agent_service_pb2.HeartbeatRequest(goodbye=message))
        self._outlet.half_close()
        self._guard = asyncio.get_running_loop().call_later(grace.total_seconds(), self._call.cancel)

    async def _begin(self) -> None:
        self._outlet.send(agent_service_pb2.HeartbeatRequest(hello=self._hello()))
        async with asyncio.timeout(self._context.config.welcome_timeout.total_seconds()):
            message = await read(self._call)
        if message is None:
            return
        kind = message.WhichOneof("message")
        if kind == "reconnect":
            # Sent away at the door: what follows until the end says nothing more.
            self._hear(message)
            return
        if kind != "welcome":
            words = f"the first message of the server was {kind or 'of a kind unknown to this agent'}"
            raise StreamFailedError(Failure(grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VIOLATION", words))
        welcome = message.welcome
        failpoints.hit("agent.after_welcome")
        await self._context.journal.store_nonce(welcome.next_nonce)
        failpoints.hit("agent.after_nonce")
        self._interval = _seconds(welcome.heartbeat_interval)
        self._schedule_beat()
        self._on_welcome(welcome)

    def _hello(self) -> agent_service_pb2.Hello:
        context = self._context
        now = Timestamp()
        now.FromDatetime(context.clock.now())
        return agent_service_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            agent_version=context.config.agent_version,
            boot_id=context.journal.boot_id,
            journal_id=context.journal.journal_id,
            session_nonce=context.journal.nonce,
            task_kinds=context.host.task_kinds(),
            inventory_digest=context.host.inventory_digest(),
            host=context.host.facts(),
            agent_time=now,
        )

    def _hear(self, message: agent_service_pb2.HeartbeatResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "beat_acknowledged":
            self._answered(message.beat_acknowledged)
        elif kind == "work_available":
            self._on_work()
        elif kind == "reconnect":
            after = max(message.reconnect.after.ToTimedelta(), timedelta(0))
            self._on_reconnect(
                Ending(Cause.RECONNECT, after=after, reconnect_reason=message.reconnect.reason)
            )

    def _answered(self, answer: agent_service_pb2.BeatAcknowledged) -> None:
        sent_at = self._sent_at.pop(answer.sequence, None)
        if sent_at is not None:
            latency = timedelta(seconds=self._context.clock.monotonic() - sent_at)
            self._context.observer.beat_answered(latency)
        # An answer to a later beat answers those before it.
        for sequence in [one for one in self._sent_at if one < answer.sequence]:
            del self._sent_at[sequence]
        if answer.HasField("heartbeat_interval"):
            self._interval = _seconds(answer.heartbeat_interval)

    def _schedule_beat(self) -> None:
        if self._leaving:
            return
        delay = self._context.jittered(self._interval)
        self._timer = asyncio.get_running_loop().call_later(delay, self._beat)

    def _beat(self) -> None:
        self._sequence += 1
        self._sent_at[self._sequence] = self._context.clock.monotonic()
        if self._watchdog is None:
            self._watch(self._context.config.answer_within.total_seconds())
        beat = agent_service_pb2.Beat(
            sequence=self._sequence,
            journaled_attempts=self._context.journal.unreported,
            queued_points=self._context.journal.queued_points,
        )
        self._outlet.send(agent_service_pb2.HeartbeatRequest(beat=beat))
        self._schedule_beat()

    def _watch(self, seconds: float) -> None:
        self._watchdog = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """End the session where the oldest beat without an answer is too old; look again when it would be."""
        self._watchdog = None
        if not self._sent_at or self._leaving:
            return
        waited = self._context.clock.monotonic() - next(iter(self._sent_at.values()))
        left = self._context.config.answer_within.total_seconds() - waited
        if left <= 0:
            self._unanswered = True
            self._call.cancel()
        else:
            self._watch(left)

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._guard, self._watchdog):
            if timer is not None:
                timer.cancel()


def _seconds(interval: Duration) -> float:
    """Return a beat's interval; a server that sets none means the default."""
    return interval.ToTimedelta().total_seconds() or _DEFAULT_INTERVAL
