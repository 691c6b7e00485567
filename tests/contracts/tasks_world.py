"""The tasks room on a real database file, with the agents it works for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from controlplane.agents.rules import Presence, PresenceReason
from controlplane.storage.location import Location
from controlplane.tasks.delivery import Delivery
from controlplane.tasks.operations import (
    Accept,
    Adopt,
    Adopted,
    AppendOutput,
    Disposition,
    Finish,
    Finished,
    Lease,
    Progress,
)
from controlplane.tasks.records import (
    Assigned,
    AttemptRecord,
    BatchRecord,
    Chosen,
    Chunk,
    NewTask,
    Options,
    TaskRecord,
    Window,
)
from controlplane.tasks.rules import Acceptance, OfflinePolicy, Outcome, TaskState
from controlplane.tasks.service import TasksService
from controlplane.tasks.sweeping import Sweep
from tests.contracts.agents_world import OPERATOR, SECRET, World, open_world

SECOND = 1_000_000
LEASE_TIME = timedelta(seconds=60)
HOUR = 3_600
DAY = 86_400
"""In seconds, as options and ``advance`` take them."""

SKIP: dict[str, Any] = {"offline": OfflinePolicy.SKIP}
LATEST: dict[str, Any] = {"offline": OfflinePolicy.LATEST, "key": "sshd"}
# The clock of these worlds begins at noon, UTC, of 1 May 2024.
NIGHTS = Window("0 22 * * *", "UTC", 2 * HOUR * SECOND)
WINDOW: dict[str, Any] = {"offline": OfflinePolicy.WINDOW, "window": NIGHTS, "queue": 30 * DAY}
"""Options of tasks with each policy, for ``create``."""


def new_task(
    *,
    priority: int = 0,
    queue: int = 3_600,
    limit: int = 600,
    idempotent: bool = False,
    attempts: int = 1,
    spec: bytes = b"",
    offline: OfflinePolicy = OfflinePolicy.QUEUE,
    key: str = "",
    window: Window | None = None,
) -> NewTask:
    """Return work to be created; ``queue`` and ``limit`` in seconds."""
    options = Options(
        priority,
        queue * SECOND,
        limit * SECOND,
        idempotent,
        attempts,
        offline,
        supersede_key=key,
        window=window,
    )
    return NewTask("echo", spec, options)


@dataclass
class TasksWorld:
    """The room, and short words for what agents and administrators do all the time."""

    world: World
    tasks: TasksService
    sweep: Sweep
    delivery: Delivery
    woken: list[str] = field(default_factory=list)
    stopping: list[str] = field(default_factory=list)

    @property
    def now(self) -> int:
        return self.world.clock.micros()

    def advance(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    async def create(self, agent_id: str = "a1", request_id: str = "", **options: Any) -> str:
        task = await self.tasks.create(OPERATOR, agent_id, new_task(**options), request_id)
        return task.task_id

    async def batch(
        self,
        selector: str = "*",
        request_id: str = "",
        *,
        percentage: int = 100,
        seed: int = 0,
        **options: Any,
    ) -> BatchRecord:
        """Create a batch."""
        return await self.tasks.batches.create(
            OPERATOR,
            Chosen(selector, percentage, seed),
            new_task(**options),
            request_id,
            allow_empty=False,
        )

    async def lease(self, agent_id: str = "a1", limit: int = 10, epoch: int = 1) -> tuple[Assigned, ...]:
        return await self.world.writer.submit(Lease(agent_id, epoch, limit, self.now))

    async def adopt(
        self, journal: Mapping[str, bool], agent_id: str = "a1", epoch: int = 1
    ) -> tuple[set[str], list[Assigned]]:
        """List a journal of {attempt id: finished}; returns what to stop, and what is sent again."""
        operation = Adopt(agent_id, epoch, tuple(journal.items()), self.now)
        adopted: Adopted = await self.world.writer.submit(operation)
        return set(adopted.stop), list(adopted.resend)

    async def accept(self, attempt_id: str, agent_id: str = "a1") -> Acceptance:
        return await self.world.writer.submit(Accept(agent_id, attempt_id, self.now))

    async def progress(self, attempt_id: str, percent: int, agent_id: str = "a1") -> None:
        await self.world.writer.submit(Progress(agent_id, attempt_id, percent, f"{percent} %", self.now))

    async def output(
        self, attempt_id: str, offset: int, data: bytes, *, stream: int = 1, agent_id: str = "a1"
    ) -> None:
        await self.world.writer.submit(AppendOutput(agent_id, attempt_id, Chunk(stream, offset, data)))

    def finishing(
        self,
        attempt_id: str,
        outcome: Outcome = Outcome.SUCCEEDED,
        agent_id: str = "a1",
        lengths: tuple[int, int, int] = (0, 0, 0),
    ) -> Finish:
        wire = f"result {outcome.name} of {attempt_id}".encode()
        return Finish(agent_id, attempt_id, outcome, outcome.name.lower(), wire, wire[:6], lengths, self.now)

    async def finished(self, finish: Finish) -> Finished:
        return await self.world.writer.submit(finish)

    async def finish(
        self, attempt_id: str, outcome: Outcome = Outcome.SUCCEEDED, agent_id: str = "a1"
    ) -> Disposition:
        return (await self.finished(self.finishing(attempt_id, outcome, agent_id))).disposition

    async def lose_journal(self, agent_id: str = "a1") -> int:
        async with self.world.database.unit_of_work() as work:
            return await self.delivery.lose_journals(work, {agent_id: self.now})

    async def begin(self, **options: Any) -> tuple[str, str]:
        """Create a task and let its agent run it; returns (task id, attempt id)."""
        task_id = await self.create(**options)
        (assigned,) = await self.lease()
        assert await self.accept(assigned.attempt_id) is Acceptance.RUN
        return task_id, assigned.attempt_id

    async def again(self) -> str:
        """Wait until a retry is due and lease it; returns its attempt id."""
        self.advance(600)
        (assigned,) = await self.lease()
        return assigned.attempt_id

    async def leave(self, agent_id: str = "a1", epoch: int = 1) -> None:
        """End the agent's session for good."""
        await self.world.report(agent_id, epoch, Presence.OFFLINE, PresenceReason.STREAM_LOST)

    async def get(self, task_id: str) -> TaskRecord:
        return await self.tasks.get(task_id)

    async def state(self, task_id: str) -> TaskState:
        return (await self.get(task_id)).state

    async def counts(self) -> dict[TaskState, int]:
        """Return how many tasks are in which open state, where there are any."""
        depths = await self.tasks.depths()
        return {state: depth.count for state, depth in depths.items() if depth.count}

    async def attempts(self, task_id: str) -> list[AttemptRecord]:
        return await self.tasks.attempts(task_id)

    async def rows(self, statement: str) -> list[Any]:
        async with self.world.database.reading() as connection:
            return list(await connection.execute(text(statement)))


@asynccontextmanager
async def open_tasks_world(location: Location) -> AsyncIterator[TasksWorld]:
    """Open a fresh database with the agents a1 and a2, both in session 1."""
    async with open_world(location) as world:
        woken: list[str] = []
        stopping: list[str] = []

        def wake(agent_ids: Iterable[str]) -> None:
            woken.extend(agent_ids)

        def stop(agent_ids: Iterable[str]) -> None:
            stopping.extend(agent_ids)

        tasks = TasksService(
            world.database, world.writer, world.agents, world.wakeups, world.clock, SECRET, wake, stop
        )
        delivery = Delivery(LEASE_TIME, tasks.changed, world.agents)
        delivery.register(world.writer)
        sweep = Sweep(world.database, world.agents, tasks, delivery.settling, world.clock)
        world.agents.on_delete.append(tasks.cancel_for_agent)
        world.on_journals_lost.append(delivery.lose_journals)
        for agent_id in ("a1", "a2"):
            await world.enrol(agent_id)
            await world.open(agent_id)
        yield TasksWorld(world, tasks, sweep, delivery, woken, stopping)


async def stale(work: TasksWorld) -> None:
    """Let the agent of most tests be late with its beats."""
    await work.world.report("a1", 1, Presence.STALE, PresenceReason.HEARTBEAT_LATE)
