"""One Tasks stream: assignments in, what became of them out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc

from agent_sim import failpoints
from agent_sim.protocol.attempts import Attempts
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.errors import JournalError
from agent_sim.protocol.failures import failure_of_status
from agent_sim.protocol.reporter import Progress
from agent_sim.protocol.results import cancelled_unknown
from agent_sim.protocol.rules import AttemptState
from agent_sim.protocol.streams import ended, read

log = logging.getLogger(__name__)

_RECORDS_A_TURN = 8
"""Output records that one attempt may send before the next one has its turn."""


@dataclass(slots=True)
class _Report:
    """How much of an attempt was told on this stream."""

    accept: bool = False
    output: bool = False
    result: bool = False
    next_ordinal: int = 0
    progress: Progress | None = None


class TasksStream:
    """Lives as long as its stream. What it did not tell, the journal tells the next one.

    Invariants: an attempt's chunks go before its result; a result goes on every
    stream until it is acknowledged; the server never holds more credits than the
    agent has room for.
    """

    def __init__(
        self,
        context: EngineContext,
        attempts: Attempts,
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub,
        welcome: agent_service_pb2.Welcome,
    ) -> None:
        self._context = context
        self._attempts = attempts
        self._epoch = welcome.session_epoch
        self._max_chunk = welcome.limits.max_chunk_bytes or 65536
        concurrency = context.config.concurrency
        self._capacity = min(concurrency, welcome.limits.max_credits or concurrency)
        self._call = stub.Tasks()
        self._reports: dict[str, _Report] = {}
        self._news: dict[str, None] = {}
        self._controls: deque[agent_service_pb2.TasksRequest] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._unacknowledged: set[str] = set()
        # Of which more than the acceptance was said here, and which were not answered since.
        self._told: dict[str, None] = {}
        self._granted = 0
        self._linger: float | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._finishing = False
        self._asked_while_open = 0
        self.closing = False

    async def serve(self) -> None:
        """Open the stream and serve it to its end. Raises StreamFailedError or JournalError."""
        self._open()
        try:
            while (message := await read(self._call)) is not None:
                self._hear(message)
                self.settle()
        finally:
            self.closing = True
            self._cancel_linger()
            if not self._call.done():
                self._call.cancel()
            if self._pump is not None:
                await ended(self._pump)

    @property
    def under_way(self) -> Sequence[str]:
        """The attempts that a refusal of this stream may be meant for."""
        return list(self._told)

    def accepted(self, attempt_id: str) -> None:
        """Say that an attempt is journalled."""
        self._report(attempt_id).accept = True
        self._has_news(attempt_id)

    def output(self, attempt_id: str) -> None:
        """Send the output that was journalled since."""
        self._report(attempt_id).output = True
        self._has_news(attempt_id)

    def progress(self, attempt_id: str, progress: Progress) -> None:
        """Say how far an attempt is."""
        self._report(attempt_id).progress = progress
        self._has_news(attempt_id)

    def finished(self, attempt_id: str) -> None:
        """Send a result that is in the journal."""
        self._report(attempt_id).result = True
        self._has_news(attempt_id)

    def work_available(self) -> None:
        """Hear, on the lifeline, that the server asks for a stream: it has none of this session.

        Once that may cross this stream's end on its way. The second time it is this stream that the server
        does not know any more, and whose end will not come.
        """
        self._asked_while_open += 1
        if self._asked_while_open > 1 and not self._call.done():
            log.warning("the server does not know this Tasks stream any more; opening another")
            self._call.cancel()

    def finish_up(self) -> None:
        """Take no more work; half-close once every finished attempt is acknowledged."""
        self._finishing = True
        self.settle()

    def settle(self) -> None:
        """Grant the credits there is room for; start or stop lingering."""
        if self.closing:
            return
        idle = not self._news and not self._controls and self._pump is None
        if self._finishing:
            if idle and not self._unacknowledged:
                self._half_close()
            return
        self._grant()
        if idle and self._attempts.held == 0 and self._linger is not None:
            if self._linger_timer is None:
                loop = asyncio.get_running_loop()
                self._linger_timer = loop.call_later(self._linger, self._half_close)
        else:
            self._cancel_linger()

    def _open(self) -> None:
        journal = self._context.journal
        entries = list(journal.entries())
        self._granted = max(0, self._capacity - self._attempts.held) if journal.has_room else 0
        message = agent_service_pb2.TasksOpen(
            session_epoch=self._epoch,
            credits=self._granted,
            journal=[
                agent_service_pb2.JournalEntry(
                    attempt_id=entry.attempt_id, finished=entry.state is AttemptState.FINISHED
                )
                for entry in entries
            ],
        )
        self._controls.append(agent_service_pb2.TasksRequest(open=message))
        if all(entry.state is not AttemptState.FINISHED for entry in entries):
            # Nothing to tell apart: what still runs cannot be answered one by one.
            self._attempts.refusals.one_by_one = False
        for entry in entries:
            report = self._report(entry.attempt_id)
            report.output, report.result = True, entry.state is AttemptState.FINISHED
            self._news[entry.attempt_id] = None
        self._wake()

    def _hear(self, message: agent_service_pb2.TasksResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "assignment":
            self._granted = max(0, self._granted - 1)
            self._context.observer.assignment_received(message.assignment)
            failpoints.hit("agent.after_receive")
            self._attempts.take(message.assignment)
        elif kind == "result_acknowledged":
            self._acknowledged(message.result_acknowledged)
        elif kind == "cancel":
            self._cancel(message.cancel.attempt_id)
        elif kind == "opened":
            self._linger = message.opened.linger.ToTimedelta().total_seconds()
            self._attempts.adopted(message.opened.unwanted)

    def _acknowledged(self, answer: agent_service_pb2.ResultAcknowledged) -> None:
        name = agent_service_pb2.ResultDisposition.Name(answer.disposition)
        name = name.removeprefix("RESULT_DISPOSITION_")
        # Before the place: who counts what was promised has counted this when the process is killed there.
        self._context.observer.result_acknowledged(answer.attempt_id, name)
        failpoints.hit("agent.after_acknowledge")
        if answer.HasField("error"):
            failure = failure_of_status(answer.error)
            log.warning("result of attempt %s rejected: %s", answer.attempt_id, failure.name)
        self._reports.pop(answer.attempt_id, None)
        self._unacknowledged.discard(answer.attempt_id)
        self._told.pop(answer.attempt_id, None)
        self._answered(answer.attempt_id)
        if self._context.journal.state(answer.attempt_id) is AttemptState.FINISHED:
            self._attempts.acknowledge(answer.attempt_id)

    def _answered(self, attempt_id: str) -> None:
        refusals = self._attempts.refusals
        held_back = refusals.one_by_one
        others = held_back and any(
            report.result or other in self._unacknowledged for other, report in self._reports.items()
        )
        refusals.answered(attempt_id, others=others)
        if held_back and not refusals.one_by_one:
            for other, report in self._reports.items():
                if report.output or report.progress or report.result:
                    self._news[other] = None
        if self._news:
            self._wake()

    def _cancel(self, attempt_id: str) -> None:
        if self._attempts.cancel(attempt_id):
            return
        finished = agent_service_pb2.AttemptFinished(
            attempt_id=attempt_id, result=cancelled_unknown(self._context.clock.now())
        )
        self._controls.append(agent_service_pb2.TasksRequest(finished=finished))
        self._wake()

    def _grant(self) -> None:
        if not self._context.journal.has_room:
            return
        free = self._capacity - self._attempts.held - self._granted
        # Half the capacity at once: one message for many results, and never a server without credits.
        if free > 0 and (free * 2 >= self._capacity or self._granted == 0):
            self._granted += free
            credits_added = agent_service_pb2.CreditsAdded(credits=free)
            self._controls.append(agent_service_pb2.TasksRequest(credits=credits_added))
            self._wake()

    def _half_close(self) -> None:
        self.closing = True
        self._wake()

    def _cancel_linger(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _report(self, attempt_id: str) -> _Report:
        return self._reports.setdefault(attempt_id, _Report())

    def _has_news(self, attempt_id: str) -> None:
        if not self.closing:
            self._news[attempt_id] = None
            self._cancel_linger()
            self._wake()

    def _wake(self) -> None:
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run_pump())

    async def _run_pump(self) -> None:
        """Write what there is to write; the only writer of this stream."""
        try:
            while True:
                if self._controls:
                    await self._call.write(self._controls.popleft())
                elif (attempt_id := self._next()) is not None:
                    del self._news[attempt_id]
                    await self._tell(attempt_id)
                else:
                    break
            if self.closing:
                await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.closing = True
        except JournalError as error:
            self._context.fail(error)
        finally:
            self._pump = None
            self.settle()

    def _next(self) -> str | None:
        """Return the attempt that is told of next; None where nothing is to be told now."""
        if not self._attempts.refusals.one_by_one:
            return next(iter(self._news), None)
        if (accepted := next((one for one in self._news if self._report(one).accept), None)) is not None:
            return accepted
        if (alone := next(iter(self._told), None)) is not None:
            return alone if alone in self._news else None
        ready = [one for one in self._news if self._is_finished(one)]
        return next(iter(self._attempts.refusals.order(ready)), None)

    def _is_finished(self, attempt_id: str) -> bool:
        state = self._context.journal.state(attempt_id)
        return self._report(attempt_id).result and state is AttemptState.FINISHED

    async def _tell(self, attempt_id: str) -> None:
        """Tell what is new of one attempt; where there is more output, it has another turn."""
        report = self._report(attempt_id)
        # Read first: output that comes after this look has news of its own.
        finished = self._is_finished(attempt_id)
        if report.accept:
            report.accept = False
            accepted = agent_service_pb2.AttemptAccepted(attempt_id=attempt_id)
            await self._call.write(agent_service_pb2.TasksRequest(accepted=accepted))
        if self._attempts.refusals.one_by_one and not (finished and self._told.keys() <= {attempt_id}):
            # Held back until it is its turn, or the others are answered.
            if finished:
                self._news[attempt_id] = None
            return
        self._told[attempt_id] = None
        if report.output and not await self._send_output(attempt_id, report):
            self._news[attempt_id] = None
            return
        # Taken before the write: what is said during it is news.
        newest, report.progress = report.progress, None
        if newest is not None and not finished:
            progress = agent_service_pb2.AttemptProgress(
                attempt_id=attempt_id,
                percent=newest.percent,
                message=newest.message,
                deployment_status=newest.status,
            )
            await self._call.write(agent_service_pb2.TasksRequest(progress=progress))
        if finished:
            report.result = False
            await self._send_result(attempt_id)

    async def _send_output(self, attempt_id: str, report: _Report) -> bool:
        """Send some records; True where there are no more."""
        report.output = False
        records = await self._context.journal.read_output(attempt_id, report.next_ordinal, _RECORDS_A_TURN)
        for record in records:
            for start in range(0, len(record.data), self._max_chunk):
                chunk = agent_service_pb2.OutputChunk(
                    attempt_id=attempt_id,
                    stream=record.stream,
                    offset=record.offset + start,
                    data=record.data[start : start + self._max_chunk],
                )
                await self._call.write(agent_service_pb2.TasksRequest(chunk=chunk))
            report.next_ordinal = record.ordinal + 1
        if len(records) == _RECORDS_A_TURN:
            report.output = True
        return not report.output

    async def _send_result(self, attempt_id: str) -> None:
        try:
            result = await self._context.journal.result(attempt_id)
        except KeyError:
            self._told.pop(attempt_id, None)
            return  # Acknowledged meanwhile.
        self._unacknowledged.add(attempt_id)
        finished = agent_service_pb2.AttemptFinished(attempt_id=attempt_id, result=result)
        await self._call.write(agent_service_pb2.TasksRequest(finished=finished))
        failpoints.hit("agent.after_send")
