"""The agents and telemetry rooms on a real database file, as ``bootstrap`` would wire them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Select, literal, select, union_all

from controlplane.agents import operations as agent_operations
from controlplane.agents.operations import ChangePresence, JournalsLost, OpenSession
from controlplane.agents.records import HostRecord, LiveSession, Registration, SessionFacts, SessionOpened
from controlplane.agents.rules import HealthLimits, Presence, PresenceReason, Transition
from controlplane.agents.service import AgentsService
from controlplane.callers import Caller, IdentityKind
from controlplane.clock import to_micros
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.storage.writer import Writer
from controlplane.telemetry import operations as telemetry_operations
from controlplane.telemetry.operations import BatchStored, StoreBatch
from controlplane.telemetry.records import PointRecord
from controlplane.telemetry.service import TelemetryService
from controlplane.wakeups import WakeUps

SECRET = b"a secret of page tokens"
NEWEST = 1_000_000
"""The epoch of a session that has no successor."""
BEGIN = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
LIMITS = HealthLimits(
    interval=timedelta(seconds=10), stale_after=timedelta(seconds=30), offline_after=timedelta(seconds=90)
)
GATEWAY = "g1"
"""The process that holds the sessions, unless a test says otherwise."""
OPERATOR = Caller(
    kind=IdentityKind.OPERATOR,
    name="ada",
    spiffe_id="spiffe://fleetwright.local/operator/ada",
    serial="01",
    not_after=0,
)


class SetClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = BEGIN

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def micros(self) -> int:
        return to_micros(self.time)


@dataclass
class World:
    """Both rooms, and short words for what tests do all the time."""

    database: Database
    wakeups: WakeUps
    clock: SetClock
    writer: Writer
    agents: AgentsService
    telemetry: TelemetryService
    on_journals_lost: list[JournalsLost]

    async def enrol(
        self, agent_id: str, labels: Mapping[str, str] | None = None, *, replace: bool = False
    ) -> bool:
        host = HostRecord(hostname=f"{agent_id}.example", os_family="linux")
        registration = Registration(agent_id, labels or {}, host)
        async with self.database.unit_of_work() as work:
            return await self.agents.register(work, registration, replace=replace, now=self.clock.now())

    async def open(
        self,
        agent_id: str,
        *,
        shown: bytes = b"",
        handed: bytes = b"n1",
        journal: str = "j1",
        boot: str = "b1",
        gateway: str = GATEWAY,
    ) -> SessionOpened:
        facts = SessionFacts(
            agent_version="0.1.0",
            boot_id=boot,
            journal_id=journal,
            shown_nonce=shown,
            task_kinds=("echo", "script"),
            inventory_digest="",
            host=HostRecord(hostname=agent_id, os_family="linux", os_name="Debian GNU/Linux"),
            clock_offset=-1_500_000,
        )
        expires = self.clock.micros() + 86_400_000_000
        operation = OpenSession(agent_id, facts, expires, handed, self.clock.micros(), gateway)
        return await self.writer.submit(operation)

    async def health(self, live: Mapping[str, LiveSession], gateway: str = GATEWAY) -> Sequence[Transition]:
        """Let a process look at its sessions; returns what it moved."""
        return (await self.agents.health_sweep(self.clock.now(), gateway, live)).moved

    async def close_sessions(self, *holders: str) -> int:
        """Close the sessions of all processes but ``holders``; returns how many."""
        async with self.database.unit_of_work() as work:
            return await self.agents.close_sessions(work, living(*holders), self.clock.now())

    async def report(
        self, agent_id: str, epoch: int, presence: Presence, reason: PresenceReason, detail: str = ""
    ) -> bool:
        operation = ChangePresence(agent_id, epoch, presence, reason, detail, self.clock.micros())
        return await self.writer.submit(operation)

    async def store(
        self,
        agent_id: str,
        first: int,
        values: list[float],
        *,
        dropped: int = 0,
        journal: str = "j1",
        metric: str = "cpu.used_ratio",
        epoch: int = NEWEST,
    ) -> BatchStored:
        now = self.clock.micros()
        points = tuple(
            PointRecord(metric=metric, time=now + first + place, value=value)
            for place, value in enumerate(values)
        )
        return await self.writer.submit(StoreBatch(agent_id, epoch, journal, first, dropped, points, now))

    async def committed(self, agent_id: str, journal: str) -> int:
        """Return up to which number a journal is committed."""
        return (await self.telemetry.standing(agent_id, journal, 0)).last_sequence


def living(*process_ids: str) -> Select[str]:
    """Return the ids of processes as the room of processes gives them."""
    statement = select(literal(process_ids[0] if process_ids else ""))
    return union_all(statement, *(select(literal(one)) for one in process_ids[1:])).subquery().select()


@asynccontextmanager
async def open_world(location: Location, *, refuse_clones: bool = False) -> AsyncIterator[World]:
    """Open a fresh database and both rooms over it."""
    database, wakeups, clock = open_database(location), WakeUps(), SetClock()
    writer = Writer(database)
    lost: list[JournalsLost] = []
    agent_operations.register_operations(writer, wakeups, lost, refuse_clones=refuse_clones)
    agents = AgentsService(database, wakeups, clock, LIMITS, SECRET)
    telemetry_operations.register_operations(writer, wakeups, agents)
    telemetry = TelemetryService(database, wakeups, agents, SECRET)
    running = asyncio.create_task(writer.run())
    try:
        yield World(database, wakeups, clock, writer, agents, telemetry, lost)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await database.close()
