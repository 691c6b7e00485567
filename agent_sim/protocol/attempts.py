"""The attempts of an agent: journalled, run within their limits, and ended with a result.

They belong to the agent, not to a session: a lost connection or a renewed
certificate does not touch what runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim import failpoints
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.errors import JournalError, JournalFullError
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.refusals import Refusals, Remedy
from agent_sim.protocol.reporter import JournalReporter, Progress
from agent_sim.protocol.results import cancelled, complete, crashed, interrupted, timed_out, without_detail
from agent_sim.protocol.rules import Admission, AttemptState

log = logging.getLogger(__name__)


class AttemptListener(Protocol):
    """Who carries news of attempts to the server; what it misses is in the journal."""

    def accepted(self, attempt_id: str) -> None:
        """Hear that an attempt is in the journal; said again for a duplicate assignment."""

    def declined(self) -> None:
        """Hear that an assignment was not taken; it is looked for again after the next forgotten attempt."""

    def output(self, attempt_id: str) -> None:
        """Hear that output was journalled."""

    def progress(self, attempt_id: str, progress: Progress) -> None:
        """Hear how far an attempt is."""

    def finished(self, attempt_id: str) -> None:
        """Hear that a result was journalled."""

    def forgotten(self) -> None:
        """Hear that an acknowledged attempt has left the journal."""

    def has_room(self) -> None:
        """Hear that the disk has room again."""


class Attempts:
    """Runs attempts, at most ``concurrency`` at a time, each in one task."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._slots = asyncio.Semaphore(context.config.concurrency)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._cancel_asked: set[str] = set()
        self._cancellable: set[str] = set()
        self._begun: dict[str, datetime] = {}
        self._arriving = 0
        self._stopping = False
        self._abandoned = False
        self._adopted = asyncio.Event()
        self._reduce_at_end: dict[str, str] = {}
        self.refusals = Refusals()
        self.listener: AttemptListener | None = None

    def resume(self) -> None:
        """Take up what was journalled and not begun when the last process ended: it waits for ``adopted``."""
        for entry in self._context.journal.entries():
            if entry.state is AttemptState.JOURNALED:
                self._track(entry.attempt_id, self._resume(entry.attempt_id))

    def adopted(self, unwanted: Iterable[str]) -> None:
        """Hear what the server says to the journal as it was listed: which attempts it wants no more.

        Only now does what an earlier process left begin. The server may have cancelled
        it, or given it up, while nobody here could hear of it.
        """
        for attempt_id in unwanted:
            self.cancel(attempt_id)
        self._adopted.set()

    def take(self, assignment: agent_service_pb2.Assignment) -> None:
        """Journal an assignment and run it, unless it is known or its task is busy."""
        attempt_id = assignment.attempt_id
        if attempt_id in self._tasks:
            # It is being journalled, or runs: only what is durable is accepted again.
            self._accept_again(attempt_id)
        elif not self._stopping:
            self._arriving += 1
            self._track(attempt_id, self._arrive(assignment))

    def cancel(self, attempt_id: str) -> bool:
        """Ask for an attempt to be stopped; False where the agent does not know it."""
        if attempt_id not in self._tasks:
            return self._context.journal.state(attempt_id) is not None
        self._cancel_asked.add(attempt_id)
        self._interrupt(attempt_id)
        return True

    @property
    def held(self) -> int:
        """How many attempts the agent has in hand: journalled and unreported, or about to be journalled."""
        return self._context.journal.unreported + self._arriving

    async def refused(self, failure: Failure, under_way: Sequence[str]) -> bool:
        """Learn from the end of a stream over what it was told; True where the next one will do better.

        A result that is refused for good is replaced by one of the same outcome that
        says so, and given up where that is refused too. Raises JournalError.
        """
        knew = self.refusals.one_by_one
        attempt_id, remedy = self.refusals.refused(failure.name, under_way)
        if remedy is Remedy.NONE:
            return self.refusals.one_by_one and not knew
        self._context.observer.result_refused(attempt_id, f"{failure.name}: {failure.message}")
        if remedy is Remedy.GIVE_UP:
            self.refusals.answered(attempt_id, others=True)
            await self._forget(attempt_id)
            return True
        self.refusals.reduced(attempt_id)
        why = f"the server refused the result as it was: {failure.name}: {failure.message}"
        state = self._context.journal.state(attempt_id)
        if state is AttemptState.FINISHED:
            await self._reduce(attempt_id, why)
        elif state is not None:
            # Its output is refused while it runs.
            self._reduce_at_end[attempt_id] = why
        return True

    async def _reduce(self, attempt_id: str, why: str) -> None:
        journal = self._context.journal
        try:
            await journal.replace_result(attempt_id, without_detail(await journal.result(attempt_id), why))
        except KeyError:
            return  # Acknowledged meanwhile.
        except JournalFullError:
            log.error("attempt %s: no room to replace its result", attempt_id)

    def acknowledge(self, attempt_id: str) -> None:
        """Forget an attempt whose result the server has."""
        task = asyncio.get_running_loop().create_task(self._forget(attempt_id))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def has_room(self) -> None:
        """Hear that the disk has room again."""
        if self.listener is not None:
            self.listener.has_room()

    async def stop(self) -> None:
        """Interrupt what runs, journal that, and let what waits wait for the next start."""
        self._stopping = True
        for attempt_id in list(self._cancellable):
            self._interrupt(attempt_id)
        await self._gather()

    async def settle(self) -> None:
        """Wait until every acknowledged attempt is forgotten."""
        await asyncio.gather(*self._background)

    async def abandon(self) -> None:
        """Stop without a word in the journal, as the end of the process would."""
        self._stopping = self._abandoned = True
        self._cancel_asked.clear()
        for task in [*self._tasks.values(), *self._background]:
            task.cancel()
        await self._gather()

    def _interrupt(self, attempt_id: str) -> None:
        # Once, and only while it waits or runs: cancelling a write to the journal would leave it half known.
        if attempt_id in self._cancellable:
            self._cancellable.discard(attempt_id)
            self._tasks[attempt_id].cancel()

    async def _gather(self) -> None:
        pending = [*self._tasks.values(), *self._background]
        await asyncio.gather(*pending, return_exceptions=True)

    def _track(self, attempt_id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks[attempt_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(attempt_id, None))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except JournalError as error:
            self._context.fail(error)

    def _accept_again(self, attempt_id: str) -> None:
        state = self._context.journal.state(attempt_id)
        if self.listener is None or state is None or state is AttemptState.ARRIVING:
            return
        self.listener.accepted(attempt_id)
        if state is AttemptState.FINISHED:
            self.listener.finished(attempt_id)

    async def _arrive(self, assignment: agent_service_pb2.Assignment) -> None:
        attempt_id = assignment.attempt_id
        # From here on the journal counts it.
        self._arriving -= 1
        admission = await self._context.journal.add(assignment)
        if admission is Admission.NEW:
            failpoints.hit("agent.after_journal")
            if self.listener is not None:
                self.listener.accepted(attempt_id)
            await self._execute(assignment)
        elif admission is Admission.KNOWN:
            self._accept_again(attempt_id)
        else:
            log.warning("attempt %s of %s not taken: %s", attempt_id, assignment.task, admission.value)
            if self.listener is not None:
                self.listener.declined()

    async def _resume(self, attempt_id: str) -> None:
        await self._execute(await self._context.journal.assignment(attempt_id), self._adopted)

    async def _execute(
        self, assignment: agent_service_pb2.Assignment, wanted: asyncio.Event | None = None
    ) -> None:
        attempt_id = assignment.attempt_id
        result = await self._outcome(assignment, wanted)
        self._cancel_asked.discard(attempt_id)
        self._begun.pop(attempt_id, None)
        if result is None:
            return
        failpoints.hit("agent.after_effect")
        if not await self._keep(attempt_id, result):
            return
        failpoints.hit("agent.after_result")
        self._context.observer.attempt_finished(attempt_id, work_pb2.Outcome.Name(result.outcome))
        if self.listener is not None:
            self.listener.finished(attempt_id)

    async def _keep(self, attempt_id: str, result: work_pb2.AttemptResult) -> bool:
        """Journal a result, without its detail if need be, and when there is room; False where it cannot."""
        while True:
            try:
                await self._context.journal.finish(attempt_id, result)
                if (why := self._reduce_at_end.pop(attempt_id, None)) is not None:
                    await self._reduce(attempt_id, why)
                return True
            except JournalFullError:
                result = without_detail(result, "done, but the agent's disk was too full for the detail")
            if not await self._context.room.wait():
                # It stays RUNNING: the next start says INTERRUPTED, which is as much as can be known then.
                log.error("attempt %s: the disk is full, its result could not be kept", attempt_id)
                return False

    async def _outcome(
        self, assignment: agent_service_pb2.Assignment, wanted: asyncio.Event | None
    ) -> work_pb2.AttemptResult | None:
        """Run an attempt once it is ``wanted``; None where it is left as the journal has it."""
        attempt_id = assignment.attempt_id
        if attempt_id in self._cancel_asked:
            return cancelled(self._context.clock.now(), None)
        if self._stopping:
            return None
        self._cancellable.add(attempt_id)
        try:
            if wanted is not None:
                await wanted.wait()
            return await self._run(assignment)
        except asyncio.CancelledError:
            if self._abandoned:
                raise
            return self._result_of_cancelling(attempt_id)
        finally:
            self._cancellable.discard(attempt_id)

    def _result_of_cancelling(self, attempt_id: str) -> work_pb2.AttemptResult | None:
        now, begun_at = self._context.clock.now(), self._begun.get(attempt_id)
        if attempt_id in self._cancel_asked:
            return cancelled(now, begun_at)
        begun = self._context.journal.state(attempt_id) is AttemptState.RUNNING
        return interrupted(now, begun_at) if begun else None

    async def _run(self, assignment: agent_service_pb2.Assignment) -> work_pb2.AttemptResult:
        context = self._context
        async with self._slots:
            await self._start(assignment.attempt_id)
            failpoints.hit("agent.after_running")
            begun = self._begun[assignment.attempt_id] = context.clock.now()
            started = context.clock.monotonic()
            limit = assignment.run_limit.ToTimedelta() if assignment.HasField("run_limit") else None
            reporter = JournalReporter(context, assignment.attempt_id, lambda: self.listener)
            try:
                result = await self._within(limit, assignment, reporter)
            finally:
                reporter.close()
            # Its length by the clock that does not jump.
            ended = begun + timedelta(seconds=context.clock.monotonic() - started)
            return complete(result, begun, ended, reporter.discarded)

    async def _start(self, attempt_id: str) -> None:
        """Mark an attempt running; without room it waits. Cancelled where the agent stops meanwhile."""
        while True:
            try:
                return await self._context.journal.start(attempt_id)
            except JournalFullError:
                if not await self._context.room.wait():
                    raise asyncio.CancelledError from None

    async def _within(
        self, limit: timedelta | None, assignment: agent_service_pb2.Assignment, reporter: JournalReporter
    ) -> work_pb2.AttemptResult:
        seconds = limit.total_seconds() if limit else None
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await self._context.host.run(assignment, reporter)
        except JournalError:
            raise
        except Exception as error:
            if scope.expired() and isinstance(error, TimeoutError):
                return timed_out(limit or timedelta(0))
            log.exception("attempt %s: the host failed", assignment.attempt_id)
            return crashed(error)

    async def _forget(self, attempt_id: str) -> None:
        try:
            await self._context.journal.forget(attempt_id)
            failpoints.hit("agent.after_forget")
        except JournalFullError:
            # Told again on the next stream, which is opened when there is room, and forgotten then.
            if self.listener is not None:
                self.listener.declined()
        except JournalError as error:
            self._context.fail(error)
        else:
            if self.listener is not None:
                self.listener.forgotten()
