"""The sweep: what becomes of tasks when nobody says anything. Runs on a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import structlog

from controlplane import failpoints
from controlplane.agents.service import AgentsService
from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks import rules
from controlplane.tasks.planning import next_opening
from controlplane.tasks.rules import AttemptState, Event, TaskState
from controlplane.tasks.service import REQUEST_MEMORY, TasksService
from controlplane.tasks.settling import Settling
from controlplane.tasks.store import creation, delivery, ending, waiting

STEP = 1_000
"""Tasks that one transaction ends: a sweep after a long stop must not hold up the agents."""


TASKS_NAMED = 10
"""Tasks that a line of the log names; of more it gives the number alone."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, in numbers of tasks; ``moved`` are those that wait for their next window."""

    expired: int = 0
    lapsed: int = 0
    overrun: int = 0
    skipped: int = 0
    moved: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Sweep:
    """Ends what waited or ran too long or does not wait, takes back leases, moves what missed its window."""

    def __init__(
        self,
        database: Database,
        agents: AgentsService,
        service: TasksService,
        settling: Settling,
        clock: Clock,
    ) -> None:
        self._database = database
        self._agents = agents
        self._service = service
        self._settling = settling
        self._clock = clock

    async def run(self) -> Swept:
        """Sweep until nothing is left that is due."""
        swept = Swept()
        while True:
            step = await self._step()
            swept += step
            if max(astuple(step)) < STEP:
                break
        async with self._database.unit_of_work() as work:
            await creation.forget_requests(
                work, to_micros(self._clock.now()) - duration_micros(REQUEST_MEMORY)
            )
        return swept

    async def _step(self) -> Swept:
        now = to_micros(self._clock.now())
        async with self._database.unit_of_work() as work:
            late = await delivery.overrun(work.connection, now, STEP)
            await self._settling.settle(
                work,
                [
                    (
                        attempt,
                        rules.event_of_overrun(attempt.task),
                        "timed out: no result arrived within the run limit",
                        now,
                    )
                    for attempt in late
                ],
                AttemptState.ABANDONED,
            )
            gone = await delivery.lapsed(work.connection, self._agents.session_states(), now, STEP)
            await self._settling.settle(
                work,
                [
                    (attempt, rules.event_of_lapse(attempt.task), "the agent left before it took it", now)
                    for attempt in gone
                ],
                AttemptState.LAPSED,
            )
            waited = await self._expire(work, now)
            # After the leases: what has just come back to the queue waits too.
            skipped = await waiting.left_waiting(work.connection, self._agents.living(), STEP)
            await ending.end_tasks(
                work, skipped, TaskState.SKIPPED, "skipped: its agent went offline before it took it", now
            )
            moved = await self._move(work, now)
            if waited or skipped or moved:
                self._service.following.anything_changed(work)
                work.after_commit(self._service.changed)
            swept = Swept(len(waited), len(gone), len(late), len(skipped), len(moved))
            # A sweep that finds nothing is no place to be killed at: nothing hangs on its commit.
            if any(astuple(swept)):
                failpoints.hit("sweep.before_commit")
        if any(astuple(swept)):
            failpoints.hit("sweep.after_commit")
        _tell("tasks timed out", [attempt.task_id for attempt in late])
        _tell("leases lapsed", [attempt.task_id for attempt in gone])
        _tell("tasks expired", waited)
        _tell("tasks skipped", skipped)
        _tell("tasks moved to their next window", moved)
        return swept

    async def _expire(self, work: UnitOfWork, now: int) -> Sequence[str]:
        ended: dict[Event, list[str]] = {}
        for row in await delivery.expired(work.connection, now, STEP):
            ended.setdefault(rules.event_of_expiry(delivery.view(row)), []).append(row.task_id)
        waited = [task_id for task_ids in ended.values() for task_id in task_ids]
        await ending.end_attempts_of(work, waited, AttemptState.LAPSED, now)
        for event, task_ids in ended.items():
            # From QUEUED as from LEASED, each leads to one state.
            state = rules.transition(TaskState.QUEUED, event)
            await ending.end_tasks(work, task_ids, state, _EXPIRED[event], now)
        return waited

    async def _move(self, work: UnitOfWork, now: int) -> Sequence[str]:
        missed = await waiting.missed_windows(work.connection, now, STEP)
        for window, task_ids in missed.items():
            await waiting.move_to(work, task_ids, next_opening(window, now), now)
        return [task_id for task_ids in missed.values() for task_id in task_ids]


_EXPIRED = {
    Event.EXPIRE: "expired: its agent did not take it in time",
    Event.CANCEL: "cancelled, and its agent did not take it in time",
}


def _tell(event: str, task_ids: Sequence[str]) -> None:
    if task_ids:
        _log.info(event, count=len(task_ids), tasks=list(task_ids[:TASKS_NAMED]))
