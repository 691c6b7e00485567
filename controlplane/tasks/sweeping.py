"""The sweep: what becomes of tasks when nobody says anything. Runs on a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from controlplane.agents.service import AgentsService
from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.storage.database import Database
from controlplane.tasks import rules
from controlplane.tasks.rules import AttemptState, TaskState
from controlplane.tasks.service import REQUEST_MEMORY, TasksService
from controlplane.tasks.settling import Settling
from controlplane.tasks.store import creation, delivery, ending

STEP = 1_000
"""Tasks that one transaction ends: a sweep after a long stop must not hold up the agents."""


TASKS_NAMED = 10
"""Tasks that a line of the log names; of more it gives the number alone."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did."""

    expired: int
    lapsed: int
    overrun: int


class Sweep:
    """Expires what waited too long, takes back leases, and gives up what ran too long."""

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
        expired = lapsed = overrun = 0
        while True:
            step = await self._step()
            expired, lapsed, overrun = expired + step.expired, lapsed + step.lapsed, overrun + step.overrun
            if max(step.expired, step.lapsed, step.overrun) < STEP:
                break
        async with self._database.unit_of_work() as work:
            await creation.forget_requests(
                work, to_micros(self._clock.now()) - duration_micros(REQUEST_MEMORY)
            )
        return Swept(expired, lapsed, overrun)

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
            waited = [row.task_id for row in await delivery.expired(work.connection, now, STEP)]
            await ending.end_attempts_of(work, waited, AttemptState.LAPSED, now)
            await ending.end_tasks(
                work, waited, TaskState.EXPIRED, "expired: its agent did not take it in time", now
            )
            if waited:
                work.after_commit(self._service.changed)
        _tell("tasks timed out", [attempt.task_id for attempt in late])
        _tell("leases lapsed", [attempt.task_id for attempt in gone])
        _tell("tasks expired", waited)
        return Swept(len(waited), len(gone), len(late))


def _tell(event: str, task_ids: Sequence[str]) -> None:
    if task_ids:
        _log.info(event, count=len(task_ids), tasks=list(task_ids[:TASKS_NAMED]))
