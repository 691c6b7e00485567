"""The Tasks stream: assignments out as credits allow, attempts and results in.

Three parts share a stream. The reader takes messages and puts operations into the
writer without waiting for each commit, at most ``results_under_way`` at once. The
dispatcher leases work when there is some and the agent has credits. The sender
writes what both have to say, in order. A result is acknowledged from the callback
of its commit, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from fleetwright.v1 import agent_service_pb2 as pb2

from controlplane import failpoints
from controlplane.clock import Clock, to_micros
from controlplane.errors import InvalidArgument, NotFound, ServiceError
from controlplane.observability.metrics import Metrics
from controlplane.sessions import reading, rules
from controlplane.sessions.dispatching import Dispatcher
from controlplane.sessions.limits import SessionPolicy
from controlplane.sessions.observing import StreamObserver
from controlplane.sessions.registry import Registry, Session, replaced
from controlplane.sessions.reports import finish_of, progress_of
from controlplane.sessions.under_way import UnderWay
from controlplane.sessions.writing import uncancel, write
from controlplane.storage.writer import Operation, Writer
from controlplane.tasks.ledger.observing import Observations
from controlplane.tasks.operations import (
    Accept,
    AppendOutput,
    Disposition,
    Finish,
    Finished,
)
from controlplane.tasks.records import Chunk
from controlplane.tasks.rules import Acceptance, Outcome
from controlplane.tasks.service import TasksService
from controlplane.transport.context import current_caller
from controlplane.transport.errors import to_status
from controlplane.transport.patience import Patience

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger(__name__)


class WorkStreams:
    """Serves the Tasks stream of every agent of this process."""

    def __init__(
        self,
        registry: Registry,
        writer: Writer,
        tasks: TasksService,
        clock: Clock,
        policy: SessionPolicy,
        metrics: Metrics,
        observations: Observations,
    ) -> None:
        self._observations = observations
        self._registry = registry
        self._writer = writer
        self._tasks = tasks
        self._clock = clock
        self._policy = policy
        self._metrics = metrics
        self._opening = Patience(policy.first_message_after)
        self._writing = Patience(policy.slow_reader_after)

    async def serve(self, context: Context) -> None:
        """Serve one stream; raises the ``ServiceError`` that ends it as refused."""
        opening = await reading.first(context, "open", self._opening)
        caller = current_caller()
        session = self._registry.live(caller.name, caller.serial, opening.session_epoch)
        structlog.contextvars.bind_contextvars(session=session.epoch)
        stream = _WorkStream(
            context,
            session,
            self._registry,
            self._writer,
            self._tasks,
            self._clock,
            self._policy,
            self._writing,
            self._metrics,
            self._observations,
        )
        if session.work is not None:
            session.work.end(replaced(session.agent_id))
        session.work = stream
        session.announced = float("-inf")
        try:
            await stream.run(opening)
        finally:
            if session.work is stream:
                session.work = None
            stream.when_idle(lambda: self._left(session, stream))

    def _left(self, session: Session, stream: _WorkStream) -> None:
        # What was handed out and not taken, or came while the stream was ending, would
        # wait for the slow poll otherwise.
        if stream.leaves_work and self._registry.get(session.agent_id) is session:
            self._registry.wake_session(session)


class _WorkStream:
    def __init__(
        self,
        context: Context,
        session: Session,
        registry: Registry,
        writer: Writer,
        tasks: TasksService,
        clock: Clock,
        policy: SessionPolicy,
        writing: Patience,
        metrics: Metrics,
        observations: Observations,
    ) -> None:
        self._context = context
        self._session = session
        self._registry = registry
        self._agent_id = session.agent_id
        self._writer = writer
        # No method of the stream: with one in the dispatcher, an ended stream would wait for the collector.
        self._now = partial(_micros, clock)
        self._observer = StreamObserver(observations, session.agent_id, session.epoch, self._now)
        self._policy = policy
        self._writing = writing
        self._metrics = metrics
        self._log = _log.bind()  # once for a stream: at the usual level its debug lines then cost nothing
        self._dispatcher = Dispatcher(
            session.agent_id,
            session.epoch,
            writer,
            tasks,
            policy.max_credits,
            policy.unheard_after,
            self._now,
        )
        self._outbox = self._dispatcher.outbox
        self._messages = rules.message_allowance(self._time())
        self._progress_pace = rules.ProgressPace()
        self._under_way = UnderWay(policy.results_under_way)
        self._failure: ServiceError | None = None
        self._task = asyncio.current_task()
        self._ended = False
        self._opened = asyncio.Event()
        self._dispatching: asyncio.Task[None] | None = None

    @property
    def leaves_work(self) -> bool:
        """Whether the agent should come back at once."""
        return self._dispatcher.leaves_work

    def wake(self, *, stopping: bool = False) -> None:
        """Look for work; with ``stopping``, for attempts to be stopped too."""
        self._dispatcher.wake(stopping=stopping)

    def end(self, error: ServiceError | None) -> None:
        """End the stream soon; with ``error``, as refused."""
        if not self._ended:
            self._ended = True
            self._dispatcher.end()
            self._failure = self._failure or error
            if self._task is not None:
                self._task.cancel()

    def when_idle(self, action: Callable[[], None]) -> None:
        """Call ``action`` once nothing of the stream is at work, a lease under way included."""
        if self._dispatching is None or self._dispatching.done():
            action()
        else:
            self._dispatching.add_done_callback(lambda _: action())

    async def run(self, opening: pb2.TasksOpen) -> None:
        """Run the stream to its end."""
        sender = asyncio.create_task(self._outbox.write_all(self._write))
        sender.add_done_callback(self._part_ended)
        try:
            self._dispatcher.add_credits(opening.credits)
            journal = tuple((entry.attempt_id, entry.finished) for entry in opening.journal)
            # Never cancelled: a lease that is being committed must be known as untaken,
            # or its tasks would be handed out and nobody the wiser.
            self._dispatching = self._registry.run_aside(self._dispatcher.serve(journal, self._say_opened))
            self._dispatching.add_done_callback(self._part_ended)
            await self._opened.wait()
            await self._receive()
            # The commit of everything that was read has been answered before the stream ends.
            await self._under_way.none()
        except asyncio.CancelledError:
            if not self._ended:
                raise
            uncancel()
        finally:
            self._ended = True
            self._dispatcher.end()
            self._outbox.close(refused=self._failure is not None)
            await self._flushed(sender)
        if self._failure is not None:
            raise self._failure

    async def _flushed(self, sender: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait([sender])
        except asyncio.CancelledError:
            sender.cancel()
            raise

    def _part_ended(self, part: asyncio.Task[None]) -> None:
        if part.cancelled():
            return
        error = part.exception()
        if error is None:
            return
        if not isinstance(error, ServiceError):
            _log.error("a part of the stream failed", exc_info=error)
        self.end(error if isinstance(error, ServiceError) else None)

    # --- sending

    def _say_opened(self, unwanted: Sequence[str]) -> None:
        opened = pb2.TasksOpened(unwanted=unwanted)
        opened.linger.FromTimedelta(self._policy.tasks_linger)
        self._outbox.put(pb2.TasksResponse(opened=opened))
        self._opened.set()

    async def _write(self, response: pb2.TasksResponse) -> None:
        begun = self._now()
        await write(self._context, response, self._writing)
        self._observer.written(response, begun)
        if response.HasField("result_acknowledged"):
            failpoints.hit("results.after_acknowledge")
        elif response.HasField("assignment"):
            failpoints.hit("leases.after_send")

    # --- receiving

    async def _receive(self) -> None:
        take: dict[str, Callable[[Any], Any]] = {
            "accepted": self._accepted,
            "progress": self._progress,
            "chunk": self._chunk,
            "finished": self._finished,
            "credits": self._credits_added,
        }
        while True:
            await self._outbox.room.wait()
            if (delay := self._messages.owe(self._time())) > 0:
                # Held back by flow control, not refused: a journal that is replayed may be long.
                await asyncio.sleep(delay)
            message = await self._context.read()
            if message is grpc.aio.EOF:
                return
            self._dispatcher.heard()
            kind = message.WhichOneof("message")
            if kind not in take:
                raise InvalidArgument("PROTOCOL_VIOLATION", "message: open comes only once")
            await take[kind](getattr(message, kind))

    async def _accepted(self, accepted: pb2.AttemptAccepted) -> None:
        failpoints.hit("accepts.after_receive")
        self._dispatcher.taken(accepted.attempt_id)
        attempt_id = accepted.attempt_id

        def answer(acceptance: Acceptance) -> None:
            failpoints.hit("accepts.after_commit")
            if acceptance is Acceptance.STOP:
                self._dispatcher.stop(attempt_id)

        await self._put(Accept(self._agent_id, attempt_id, self._now()), answer, attempt_id)

    async def _progress(self, progress: pb2.AttemptProgress) -> None:
        if not self._progress_pace.passes(progress.attempt_id, self._time(), progress.deployment_status):
            return
        operation = progress_of(self._agent_id, progress, self._now())
        await self._put(operation, lambda _: None, progress.attempt_id)

    async def _chunk(self, chunk: pb2.OutputChunk) -> None:
        operation = AppendOutput(
            self._agent_id, chunk.attempt_id, Chunk(int(chunk.stream), chunk.offset, chunk.data)
        )
        await self._put(operation, lambda _: None, chunk.attempt_id)

    async def _finished(self, finished: pb2.AttemptFinished) -> None:
        failpoints.hit("results.after_receive")
        received = self._now()
        self._dispatcher.taken(finished.attempt_id)
        attempt_id = finished.attempt_id
        operation = finish_of(self._agent_id, finished, self._now())

        def answer(committed: Finished) -> None:
            failpoints.hit("results.after_commit")
            self._observer.committed(attempt_id, committed, received)
            # What went wrong is news. Its reason is the agent's text, and not for the log.
            say = self._log.debug if operation.outcome is Outcome.SUCCEEDED else self._log.info
            say(
                "attempt ended",
                task=committed.task_id,
                attempt=attempt_id,
                outcome=operation.outcome.name,
                disposition=committed.disposition.name,
            )
            self._acknowledge(
                attempt_id,
                pb2.RESULT_DISPOSITION_COMMITTED
                if committed.disposition is Disposition.COMMITTED
                else pb2.RESULT_DISPOSITION_DUPLICATE,
            )
            for other in committed.stop:
                self._dispatcher.stop(other)

        await self._put(operation, answer, attempt_id)

    async def _credits_added(self, added: pb2.CreditsAdded) -> None:
        self._dispatcher.add_credits(added.credits)

    def _acknowledge(
        self, attempt_id: str, disposition: pb2.ResultDisposition.ValueType, error: ServiceError | None = None
    ) -> None:
        acknowledged = pb2.ResultAcknowledged(attempt_id=attempt_id, disposition=disposition)
        if error is not None:
            acknowledged.error.CopyFrom(to_status(error))
        name = pb2.ResultDisposition.Name(disposition).removeprefix("RESULT_DISPOSITION_")
        self._metrics.results.labels(name).inc()
        self._dispatcher.forget(attempt_id)
        self._progress_pace.forget(attempt_id)
        self._outbox.put(pb2.TasksResponse(result_acknowledged=acknowledged))

    async def _put(self, operation: Operation[Any], answer: Callable[[Any], None], attempt_id: str) -> None:
        """Put an operation into the writer and answer from the callback of its commit."""
        await self._under_way.begin()
        try:
            future = await self._writer.enqueue(operation)
        except BaseException:
            self._under_way.end()
            raise

        def done(ended: asyncio.Future[Any]) -> None:
            self._under_way.end()
            if ended.cancelled():
                return
            error = ended.exception()
            if error is None:
                answer(ended.result())
            elif isinstance(error, NotFound):
                self._reject(operation, attempt_id, error)
            else:
                # Not durable: the agent keeps it and sends it again on the next stream.
                self.end(error if isinstance(error, ServiceError) else None)

        future.add_done_callback(done)

    def _reject(self, operation: Operation[Any], attempt_id: str, error: NotFound) -> None:
        """Answer what concerns an attempt that is not this agent's; the stream lives on."""
        self._metrics.refused.labels(error.reason).inc()
        self._log.info("attempt unknown", attempt=attempt_id, message=type(operation).__name__)
        if isinstance(operation, Finish):
            self._acknowledge(attempt_id, pb2.RESULT_DISPOSITION_REJECTED, error)
        elif isinstance(operation, Accept):
            self._dispatcher.cancel(attempt_id)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()


def _micros(clock: Clock) -> int:
    return to_micros(clock.now())
