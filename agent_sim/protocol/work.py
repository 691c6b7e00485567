"""The Tasks stream of a session: opened on demand, carrying what the journal holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc

from agent_sim.protocol.attempts import Attempts
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.demand import OnDemand
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.reporter import Progress
from agent_sim.protocol.streams import StreamFailedError
from agent_sim.protocol.tasks_stream import TasksStream


class Work:
    """Implements AttemptListener for a session: opens the stream when there is news."""

    def __init__(
        self,
        context: EngineContext,
        attempts: Attempts,
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub,
        welcome: agent_service_pb2.Welcome,
        on_stale: Callable[[Failure], None],
    ) -> None:
        self._context = context
        self._attempts = attempts
        self._stub = stub
        self._welcome = welcome
        self._stream: TasksStream | None = None
        self._demand = OnDemand(context, self._serve, on_stale)
        self._declined = False

    def begin(self) -> None:
        """Take over the news of the attempts, and report what the journal holds."""
        self._attempts.listener = self
        if self._context.journal.unreported:
            self._demand.want()

    def work_available(self) -> None:
        """Open the stream: the server has work."""
        self._demand.want()
        if self._stream is not None:
            self._stream.work_available()

    async def close(self, grace: timedelta) -> None:
        """Report what is finished, as far as ``grace`` allows, and end the stream."""
        if self._attempts.listener is self:
            self._attempts.listener = None
        if self._stream is not None:
            self._stream.finish_up()
        await self._demand.close(grace)

    def accepted(self, attempt_id: str) -> None:
        """Tell the server that an attempt is journalled."""
        if self._stream is not None:
            self._stream.accepted(attempt_id)
        else:
            self._demand.want()

    def declined(self) -> None:
        """Ask again for the assignment, on a fresh stream, once an attempt was forgotten.

        The server then decides anew, with the first attempt's result known to
        it, whether it still wants the second one.
        """
        self._declined = True
        if self._stream is not None:
            self._stream.settle()

    def output(self, attempt_id: str) -> None:
        """Send output that was journalled."""
        if self._stream is not None:
            self._stream.output(attempt_id)

    def progress(self, attempt_id: str, progress: Progress) -> None:
        """Send progress, where the stream is open."""
        if self._stream is not None:
            self._stream.progress(attempt_id, progress)

    def finished(self, attempt_id: str) -> None:
        """Send a result."""
        if self._stream is not None:
            self._stream.finished(attempt_id)
        self._demand_if_closed()

    def forgotten(self) -> None:
        """Make use of the room that an acknowledged attempt left."""
        if self._stream is not None:
            if self._declined:
                self._declined = False
                self._demand.want()
                self._stream.finish_up()
            self._stream.settle()

    def has_room(self) -> None:
        """Take work again, and settle what had to wait for room."""
        if self._declined:
            self._declined = False
            self._demand.want()
            if self._stream is not None:
                self._stream.finish_up()
        if self._stream is not None:
            self._stream.settle()

    def _demand_if_closed(self) -> None:
        if self._stream is None or self._stream.closing:
            self._demand.want()

    async def _serve(self) -> bool:
        stream = TasksStream(self._context, self._attempts, self._stub, self._welcome)
        self._stream = stream
        try:
            await stream.serve()
        except StreamFailedError as error:
            if not await self._attempts.refused(error.failure, stream.under_way):
                raise
            self._context.observer.failed(error.failure.name, error.failure.message)
            return True
        finally:
            self._stream = None
        # What arrived while the stream was closing is in the journal: report it on the next one.
        if self._context.journal.unreported:
            self._demand.want()
        return False
