"""One lean agent: a session with its beats, and Tasks streams when there is work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import agent_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import work_pb2

from agent_sim.protocol.connection import agent_channel
from agent_sim.protocol.identity import AgentIdentity
from bench.load.replay import Replay

Journal = dict[str, pb2.Assignment]
"""Attempts that are done and whose results are not acknowledged, by attempt id."""

CREDITS = 64
"""Assignments that a stream takes at once; half of them are granted again together."""


class Observer(Protocol):
    """What an agent tells the load."""

    def beat_answered(self, agent: Agent) -> float | None:
        """Note an answer; returns seconds to the next beat, None for the session's own interval."""

    def received(self, task: str) -> None:
        """Note the receipt of an assignment."""

    def acknowledged(self) -> None:
        """Note that a result is committed."""

    def lost(self, agent_id: str, why: str) -> None:
        """Note that a stream ended that should not."""


class Agent:
    """An enrolled agent on a connection of its own."""

    def __init__(self, identity: AgentIdentity, address: str, observer: Observer) -> None:
        self.agent_id = identity.agent_id
        self._observer = observer
        self._channel = agent_channel(address, identity)
        self._stub = pb2_grpc.AgentServiceStub(self._channel)
        self._call: Any = None
        self._epoch = 0
        self._most_points = 0
        self._interval = 10.0
        self._sequence = 0
        self._unanswered = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = False
        self._work_waits = False
        self._journal: Journal = {}
        self._leaving = False
        # An answer may be read before the write of what it answers has returned, and gRPC ends a call
        # with two writes under way as INTERNAL.
        self._writing = asyncio.Lock()

    async def connect(self) -> None:
        """Open a session and keep it. Raises ``grpc.aio.AioRpcError`` where it is refused."""
        self._call = self._stub.Heartbeat()
        hello = pb2.Hello(
            protocol_version=1,
            agent_version="bench",
            boot_id="boot",
            journal_id=f"journal-{self.agent_id}",
            task_kinds=["echo"],
            host=work_pb2.HostFacts(hostname=f"{self.agent_id}.bench", os_family="linux"),
        )
        await self._call.write(pb2.HeartbeatRequest(hello=hello))
        response = await self._call.read()
        if response is grpc.aio.EOF:
            raise ConnectionError(f"{self.agent_id}: {await self._call.details()}")
        self._epoch = response.welcome.session_epoch
        self._most_points = response.welcome.limits.max_batch_points
        self._interval = response.welcome.heartbeat_interval.ToTimedelta().total_seconds()
        self._aside(self._read())
        self._beat_in(None)

    async def leave(self) -> None:
        """Say goodbye and close the connection."""
        self._leaving = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            async with self._writing:
                await self._call.write(pb2.HeartbeatRequest(goodbye=pb2.Goodbye(reason="bench")))
                await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the server ended first: there is nobody to take leave of
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        await self._channel.close()

    def beat_now(self) -> bool:
        """Send a beat at once, instead of the next one that is due; False where one is under way."""
        if self._unanswered:
            return False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unanswered = True
        self._aside(self._beat())
        return True

    def replay(self, points: int, most: int) -> Replay:
        """Return a Telemetry stream that is to send so many points, at most ``most`` a batch."""
        size = min(most, self._most_points)
        return Replay(self._stub.Telemetry(), self._epoch, f"journal-{self.agent_id}", points, size)

    # --- the session

    async def _beat(self) -> None:
        self._sequence += 1
        try:
            async with self._writing:
                await self._call.write(pb2.HeartbeatRequest(beat=pb2.Beat(sequence=self._sequence)))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader says why

    def _beat_in(self, seconds: float | None) -> None:
        if self._leaving:
            return
        delay = self._interval * random.uniform(1, 1.1) if seconds is None else seconds  # noqa: S311
        self._timer = asyncio.get_running_loop().call_later(delay, self.beat_now)

    async def _read(self) -> None:
        while (message := await self._read_one(self._call)) is not None:
            kind = message.WhichOneof("message")
            if kind == "beat_acknowledged":
                if message.beat_acknowledged.HasField("heartbeat_interval"):
                    interval = message.beat_acknowledged.heartbeat_interval
                    self._interval = interval.ToTimedelta().total_seconds()
                self._unanswered = False
                delay = self._observer.beat_answered(self)
                if delay is not None and delay <= 0:
                    self._unanswered = True
                    await self._beat()
                else:
                    self._beat_in(delay)
            elif kind == "work_available":
                self._open_work()
        if not self._leaving:
            self._observer.lost(self.agent_id, f"heartbeat: {await self._why()}")

    async def _why(self) -> str:
        return f"{(await self._call.code()).name} {await self._call.details()}"

    @staticmethod
    async def _read_one(call: Any) -> Any:
        try:
            message = await call.read()
        except grpc.aio.AioRpcError:
            return None
        return None if message is grpc.aio.EOF else message

    # --- work

    def _open_work(self) -> None:
        if self._working:
            self._work_waits = True
            return
        self._working, self._work_waits = True, False
        self._aside(self._work())

    async def _work(self) -> None:
        try:
            await WorkStream(self._stub.Tasks(), self._epoch, self._journal, self._observer).serve(
                self._read_one
            )
        finally:
            self._working = False
            if (self._work_waits or self._journal) and not self._leaving:
                self._open_work()

    def _aside(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class WorkStream:
    """One Tasks stream: every assignment is accepted and finished at once.

    What this stream could not tell, because the assignment crossed its half-close, stays in the
    ``journal`` and is told on the next one.
    """

    def __init__(self, call: Any, epoch: int, journal: Journal, observer: Observer) -> None:
        self._call = call
        self._epoch = epoch
        self._journal = journal
        self._observer = observer
        self._used = 0
        self._linger = 5.0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def serve(self, read: Callable[[Any], Any]) -> None:
        """Work until the server has ended the stream, which follows our own half-close."""
        entries = [pb2.JournalEntry(attempt_id=attempt_id, finished=True) for attempt_id in self._journal]
        opening = pb2.TasksOpen(session_epoch=self._epoch, credits=CREDITS, journal=entries)
        try:
            await self._write(open=opening)
            for assignment in list(self._journal.values()):
                await self._finish(assignment)
            while (message := await read(self._call)) is not None:
                await self._hear(message)
        finally:
            self._keep()
            self._call.cancel()

    async def _hear(self, message: pb2.TasksResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "assignment":
            self._keep()
            self._journal[message.assignment.attempt_id] = message.assignment
            self._observer.received(message.assignment.task)
            await self._write(accepted=pb2.AttemptAccepted(attempt_id=message.assignment.attempt_id))
            await self._finish(message.assignment)
            await self._grant()
        elif kind == "result_acknowledged":
            if self._journal.pop(message.result_acknowledged.attempt_id, None) is not None:
                self._observer.acknowledged()
            self._linger_on()
        elif kind == "opened":
            self._linger = message.opened.linger.ToTimedelta().total_seconds()
            self._linger_on()

    async def _finish(self, assignment: pb2.Assignment) -> None:
        result = work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED)
        result.echo.payload = assignment.spec.echo.payload
        await self._write(finished=pb2.AttemptFinished(attempt_id=assignment.attempt_id, result=result))

    async def _grant(self) -> None:
        self._used += 1
        if self._used * 2 >= CREDITS:
            await self._write(credits=pb2.CreditsAdded(credits=self._used))
            self._used = 0

    async def _write(self, **what: Any) -> None:
        try:
            await self._call.write(pb2.TasksRequest(**what))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # half-closed or ended meanwhile: the journal keeps what was not told

    def _linger_on(self) -> None:
        if not self._journal and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._close)

    def _keep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._closing = asyncio.get_running_loop().create_task(self._half_close())

    async def _half_close(self) -> None:
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # it has ended already
