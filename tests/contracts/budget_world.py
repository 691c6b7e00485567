"""A served site with a small fleet whose books say which statements it has issued."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fleetwright.v1 import task_service_pb2, work_pb2

from controlplane.agents.operations import OpenSession
from controlplane.agents.records import HostRecord, Registration, SessionFacts
from controlplane.bootstrap import Server
from controlplane.clock import to_micros
from controlplane.storage.writer import Operation, Writer
from controlplane.tasks.operations import Accept, Lease
from controlplane.telemetry.operations import StoreBatch
from controlplane.telemetry.records import PointRecord
from tests.support.admin import Admin
from tests.support.agents import RawAgent
from tests.support.folders import make_folder
from tests.support.in_process import LocalSite, serving
from tests.support.site import http_get

MANY = 50
ECHO = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"x"))
ENDS = ("storage.begin", "storage.commit", "storage.rollback")


class Cost(NamedTuple):
    """Statements, and transactions that they stood in; begin, commit and rollback are not among the first."""

    statements: int
    transactions: int


Doing = Callable[[], Awaitable[object]]
"""What is measured."""


@dataclass
class World:
    """The server, an administrator, and ``MANY`` agents, ``a0`` and so on, of which none is connected."""

    site: LocalSite
    admin: Admin
    agents: list[RawAgent]
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def server(self) -> Server:
        assert self.site.server is not None
        return self.site.server

    @property
    def writer(self) -> Writer:
        return self.server.engines.writer

    @property
    def now(self) -> int:
        return to_micros(self.server.engines.clock.now())

    def counted(self) -> Counter[tuple[str, str]]:
        """Return how often each (query, engine) was issued up to now."""
        return Counter(
            {
                labels: sum(tally.buckets)
                for labels, tally in self.server.engines.metrics.statements.tallies.items()
            }
        )

    async def settled(self) -> None:
        """Wait until nothing follows: a wake-up, a lease, the end of a session, what was observed."""
        database: Any = self.server.engines.database
        pools = (database.write_engine.pool, database.read_engine.pool)
        while True:
            before = self.counted()
            for _ in range(3):
                await http_get(self.site.ports.health, "/healthz")
                await self.writer._queue.join()
            if self.counted() == before and not any(pool.checkedout() for pool in pools):
                # All that was observed at once, and not some of it in the middle of what follows.
                await self.server.gateway.observations.flush()
                if self.counted() == before:
                    return

    async def cost(self, doing: Callable[[], Awaitable[object]]) -> tuple[Cost, Counter[tuple[str, str]]]:
        """Return what ``doing`` and all that follows from it costs, and what it is made of."""
        await self.settled()
        before = self.counted()
        await doing()
        await self.settled()
        issued = self.counted() - before
        transactions = sum(number for (query, _), number in issued.items() if query == "storage.begin")
        statements = sum(number for (query, _), number in issued.items() if query not in ENDS)
        return Cost(statements, transactions), issued

    async def submit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Put operations into one group commit; raises what one of them is refused with."""
        sizes: list[int] = []
        observe = self.writer._observe

        def note(size: int, seconds: float) -> None:
            sizes.append(size)
            observe(size, seconds)

        self.writer._observe = note
        try:
            outcomes = await asyncio.gather(*map(self.writer.submit, operations))
        finally:
            self.writer._observe = observe
        assert sizes == [len(operations)], "the operations did not share a commit"
        return list(outcomes)

    # --- what there must be before something is measured

    def name(self) -> str:
        """Return an id that was not used before."""
        return f"n{next(self.numbers)}"

    async def enrolled(self, count: int) -> list[RawAgent]:
        """Enrol so many agents that nothing else uses."""
        _, token = await self.admin.token(max_uses=count)
        stub = self.site.enrollment()
        return [await self.site.enroll(self.name(), token, stub) for _ in range(count)]

    async def tasks(self, agent_ids: Sequence[str]) -> list[str]:
        """Queue a task for each of ``agent_ids``; returns the names of the tasks."""
        return [(await self.admin.create(agent_id)).name for agent_id in agent_ids]

    async def batch(self, count: int) -> task_service_pb2.TaskBatch:
        """Queue a batch of tasks for so many agents."""
        request = task_service_pb2.CreateTaskBatchRequest(selector=self.selector(count), spec=ECHO)
        made: task_service_pb2.TaskBatch = (await self.admin.tasks.CreateTaskBatch(request)).batch
        return made

    def selector(self, count: int) -> str:
        """Return a selector that matches so many agents."""
        return 'labels.first = "yes"' if count == 1 else 'labels.fleet = "yes"'

    def opening(self, agent_id: str) -> OpenSession:
        """Return the operation of a Hello."""
        facts = SessionFacts(
            agent_version="1",
            boot_id="b",
            journal_id="journal-1",
            shown_nonce=b"",
            task_kinds=("echo",),
            inventory_digest="",
            host=HostRecord(hostname=agent_id),
            clock_offset=0,
        )
        return OpenSession(agent_id, facts, self.now + 10**12, self.name().encode(), self.now)

    async def registered(self, count: int) -> list[str]:
        """Register so many agents that nothing else uses, without certificates; returns their ids."""
        ids = [self.name() for _ in range(count)]
        now = self.server.engines.clock.now()
        async with self.server.engines.database.unit_of_work() as work:
            for agent_id in ids:
                registration = Registration(agent_id, {}, HostRecord(hostname=agent_id))
                await self.server.rooms.agents.register(work, registration, replace=False, now=now)
        return ids

    async def attempts(self, count: int, *, running: bool) -> list[tuple[str, str]]:
        """Lease a new task to each of so many new agents; returns (agent id, attempt id)."""
        ids = await self.registered(count)
        await self.tasks(ids)
        leased = await self.submit([Lease(agent_id, 1, 1, self.now) for agent_id in ids])
        found = [(agent_id, assigned[0].attempt_id) for agent_id, assigned in zip(ids, leased, strict=True)]
        if running:
            await self.submit([Accept(agent_id, attempt, self.now) for agent_id, attempt in found])
        return found

    def batch_of_points(self, agent_id: str, journal: str, count: int = 1) -> StoreBatch:
        """Return the operation of a batch of telemetry."""
        points = tuple(PointRecord("test.value_count", self.now + place, 1.0) for place in range(count))
        return StoreBatch(agent_id, 1_000, journal, 1, 0, points, self.now)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[World]:
    """Serve a new folder with its fleet."""
    async with serving(make_folder(folder)) as site:
        admin = site.admin()
        _, first = await admin.token(max_uses=1, labels={"first": "yes", "fleet": "yes"})
        _, others = await admin.token(max_uses=MANY, labels={"fleet": "yes"})
        stub = site.enrollment()
        agents = [await site.enroll(f"a{at}", others if at else first, stub) for at in range(MANY)]
        assert site.server is not None
        site.server.gateway.observations._every = (
            3_600  # else they are written in the middle of what is measured
        )
        yield World(site, admin, agents)


Prepare = Callable[[World, int], Awaitable[Doing]]
"""Makes what must be there before so many rows are asked for; returns what is measured."""


async def check(world: World, budget: Cost, prepare: Prepare, rows: int) -> None:
    doing = await prepare(world, rows)
    cost, issued = await world.cost(doing)
    assert cost == budget, f"{rows} rows: {describe(issued)}"


def describe(issued: Counter[tuple[str, str]]) -> str:
    return ", ".join(f"{number} {query} ({engine})" for (query, engine), number in sorted(issued.items()))
