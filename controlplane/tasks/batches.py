"""Batches: the same work for many agents, made in slices, and cancelled as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from controlplane import failpoints
from controlplane.agents.service import AgentsService
from controlplane.callers import Caller
from controlplane.clock import Clock, to_micros
from controlplane.errors import NotFound, invalid
from controlplane.ids import new_id
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.creating import check_request_id, digest_of, made_before, unknown
from controlplane.tasks.following import Followers
from controlplane.tasks.planning import next_opening, plan
from controlplane.tasks.records import BatchCancelled, BatchRecord, Chosen, Due, NewTask
from controlplane.tasks.rules import TaskState
from controlplane.tasks.store import creation, expansion, reading

SLICE = 500
"""Tasks that one transaction makes by default, or cancels: some 20 ms, for which agents wait."""

_SLICES_IN_CALL = 2
"""Slices up to which a batch is whole when its call answers; more hold up who writes for too long."""

_log = structlog.get_logger(__name__)

Counts = Sequence[tuple[TaskState, int]]
"""How many tasks of a batch are in which state."""

MakeTask = Callable[[UnitOfWork], Awaitable[NewTask]]
"""Says what a batch is to do, in the transaction that creates it; raises what refuses it."""


class Batches:
    """Use cases of batches.

    ``announce`` is told of agents that got work, before the commit; ``changed`` and
    ``stopping`` are called after one: for watchers, and with the agents that are to
    stop an attempt. ``slice_size`` is how many tasks one transaction makes.
    """

    def __init__(
        self,
        database: Database,
        agents: AgentsService,
        clock: Clock,
        announce: Callable[[UnitOfWork, Sequence[str]], None],
        changed: Callable[[], None],
        stopping: Callable[[Iterable[str]], None],
        slice_size: int = SLICE,
        following: Followers | None = None,
    ) -> None:
        self._slice_size = slice_size
        self._following = following or Followers()
        self._database = database
        self._agents = agents
        self._clock = clock
        self._announce = announce
        self._changed = changed
        self._stopping = stopping
        self._one_at_a_time = asyncio.Lock()
        self._expanding: asyncio.Task[None] | None = None

    async def create(
        self, caller: Caller, chosen: Chosen, new_task: NewTask, request_id: str, *, allow_empty: bool
    ) -> BatchRecord:
        """Queue the same task for every agent that is chosen now.

        All tasks of a small batch are made by the call, those of a large one in slices
        after it. Raises ``InvalidArgument`` for a selector that does not parse, or that
        matches no agent unless ``allow_empty``.
        """
        digest = digest_of("selector", chosen, new_task.kind, new_task.spec, new_task.options)

        async def make(_: UnitOfWork) -> NewTask:
            return new_task

        return await self.create_made(caller, chosen, make, request_id, digest, allow_empty=allow_empty)

    async def create_made(
        self,
        caller: Caller,
        chosen: Chosen,
        make: MakeTask,
        request_id: str,
        digest: bytes,
        *,
        allow_empty: bool,
    ) -> BatchRecord:
        """Queue what ``make`` says, as ``create`` does, for rooms whose work depends on what they keep.

        ``digest`` is of what the caller asked for. A call that was made before gets its first answer, and
        ``make`` is not asked again: what it looks at may have changed since. Raises what ``make`` raises.
        """
        check_request_id(request_id)
        failpoints.hit("tasks.after_receive")
        selector = self._agents.selector(chosen.selector, percentage=chosen.percentage, seed=chosen.seed)
        async with self._database.unit_of_work() as work:
            batch_id = await made_before(work, caller, request_id, digest)
            if batch_id is None:
                now = self._now()
                batch_id = new_id(now)
                new_task = await make(work)
                due = plan(new_task.options, now)
                batch = await expansion.insert_batch(
                    work, batch_id, chosen, selector.statement, new_task, caller.spiffe_id, now
                )
                if not batch.target_count and not allow_empty:
                    raise _empty(chosen)
                if request_id:
                    await creation.insert_request(work, caller.spiffe_id, request_id, digest, batch_id, now)
                await self._begin_batch(work, batch, due, now)
        failpoints.hit("tasks.after_create")
        return (await self.get(batch_id))[0]

    async def _begin_batch(self, work: UnitOfWork, batch: BatchRecord, due: Due, now: int) -> None:
        if batch.target_count <= self._slice_size * _SLICES_IN_CALL:
            await self._expand(work, batch, due, now, batch.target_count)
        else:
            await expansion.note_targets(work, batch)
            work.after_commit(self._begin)

    async def get(self, batch_id: str) -> tuple[BatchRecord, Counts]:
        """Return a batch and the number of its tasks by state. Raises ``NotFound`` TASK_UNKNOWN."""
        async with self._database.reading() as connection:
            found = await reading.batch(connection, batch_id)
            counts = await reading.batch_counts(connection, batch_id)
        if found is None:
            raise _unknown(batch_id)
        return found, counts

    # --- expansion

    async def expand(self) -> int:
        """Make what is left to be made of all batches, slice by slice; returns how many slices that took.

        Runs on a schedule, which finds what a killed server left, and right after a call
        that created a large batch. Of two processes that do so, each makes slices of its own.
        """
        slices = 0
        async with self._one_at_a_time:
            while await self._database.transact(self._next_slice):
                slices += 1
                failpoints.hit("slice.after_commit")
        return slices

    async def _next_slice(self, work: UnitOfWork) -> bool:
        batch = await expansion.next_batch(work)
        if batch is None:
            return False
        now, window = self._now(), batch.new_task.options.window
        due = next_opening(window, now) if window else Due(now)
        await self._expand(work, batch, due, now, self._slice_size)
        failpoints.hit("slice.before_commit")
        return True

    async def _expand(self, work: UnitOfWork, batch: BatchRecord, due: Due, now: int, limit: int) -> None:
        if batch.new_task.options.supersede_key:
            ids = await expansion.targets(work.connection, batch, limit)
            await self._agents.presences(work.connection, ids, field="selector", lock=True)
        made = await expansion.expand(work, batch, self._agents.living(), due, now, limit)
        await self._following.slice_made(work, batch)
        self._announce(work, made.woken)

    def _begin(self) -> None:
        if self._expanding is None or self._expanding.done():
            self._expanding = asyncio.create_task(self._expand_now(), name="expand batches")

    async def _expand_now(self) -> None:
        try:
            await self.expand()
        except Exception:  # noqa: BLE001 # nobody awaits it; the schedule tries again
            _log.exception("a batch could not be expanded now; it is tried again")

    async def stop(self) -> None:
        """End the expansion that a call began; its slice is rolled back, and the next server goes on."""
        if self._expanding is not None:
            self._expanding.cancel()
            await asyncio.gather(self._expanding, return_exceptions=True)

    # --- cancellation

    async def cancel(self, caller: Caller, batch_id: str) -> tuple[BatchRecord, Counts, BatchCancelled]:
        """End a batch: no further task is made, each open one is cancelled as ``TasksService.cancel`` does.

        Raises ``NotFound`` TASK_UNKNOWN. A call that ends in the middle may be repeated.
        """
        async with self._database.unit_of_work() as work:
            batch = await expansion.batch_to_cancel(work, batch_id)
            if batch is None:
                raise _unknown(batch_id)
            await expansion.end_batch(work, batch_id)
            task_ids = await expansion.open_tasks(work, batch_id)
        reason = f"cancelled with its batch by {caller.spiffe_id}"
        ended = asked = 0
        for start in range(0, len(task_ids), SLICE):
            step = await self._cancel_some(batch, task_ids[start : start + SLICE], reason)
            ended, asked = ended + step.cancelled, asked + step.asked
        return *(await self.get(batch_id)), BatchCancelled(ended, asked)

    async def _cancel_some(self, batch: BatchRecord, task_ids: Sequence[str], reason: str) -> BatchCancelled:
        async with self._database.unit_of_work() as work:
            rows = await expansion.cancel_tasks(work, task_ids, reason, self._now())
            self._following.changed(work, [batch.new_task.kind])
            asked = [row.agent_id for row in rows if row.state != TaskState.CANCELLED]
            if rows:
                work.after_commit(self._changed)
            if asked:
                work.after_commit(lambda: self._stopping(asked))
        return BatchCancelled(len(rows) - len(asked), len(asked))

    def _now(self) -> int:
        return to_micros(self._clock.now())


def _unknown(batch_id: str) -> NotFound:
    return unknown("taskBatches", batch_id)


def _empty(chosen: Chosen) -> Exception:
    what = f"{chosen.selector!r}"
    if chosen.percentage < 100:
        what += f" with percentage {chosen.percentage} and seed {chosen.seed}"
    return invalid(
        "selector",
        f"{what} matches no agent; list agents with it to see, or set allow_empty",
        reason="SELECTOR_EMPTY",
    )
