"""The room's door: this process's lease, the others', and what follows from a lapse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from controlplane.agents.service import AgentsService
from controlplane.clock import Clock, duration_micros
from controlplane.errors import ServiceError
from controlplane.processes import store
from controlplane.processes.records import ProcessRecord
from controlplane.schedules import Turn
from controlplane.storage.database import Database
from controlplane.storage.database_time import database_now
from controlplane.storage.unit_of_work import UnitOfWork

__all__ = ["LeaseTimes", "Member", "ProcessRecord", "Processes"]

TakesPart = Callable[[UnitOfWork, int, timedelta, float], Awaitable[None]]
"""Takes part in a renewal: gets the database's time, how long the lease is, and the loop's time before it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How often a process renews its lease, and how long it is. One that is late once has not lapsed."""

    renewal: timedelta
    length: timedelta


class Processes:
    """Who lives in the installation."""

    def __init__(self, database: Database, agents: AgentsService, clock: Clock) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock

    async def list(self) -> Sequence[tuple[ProcessRecord, timedelta]]:
        """Return all processes, oldest first, each with how long its lease still is; it may have lapsed."""
        async with self._database.reading() as connection:
            now = await database_now(connection, self._clock)
            found = await store.everyone(connection)
        return [(one, timedelta(microseconds=one.lease_expire_time - now)) for one in found]

    async def sweep(self, turn: Turn) -> int:
        """Take away processes whose lease lapsed, and close their sessions; then judge agents nobody holds.

        Returns how many sessions were closed. For a schedule that runs once in the installation.
        """
        async with self._database.unit_of_work() as work:
            await turn.guard(work)
            now = await database_now(work.connection, self._clock)
            lapsed = await store.remove_lapsed(work, now)
            closed = await self._agents.close_sessions(work, store.ids(), self._clock.now())
        for one in lapsed:
            _log.warning(
                "a process is gone: its lease lapsed",
                process=one.process_id,
                roles=one.roles,
                host=one.host,
                pid=one.pid,
                part=one.part,
            )
        if closed:
            _log.warning("sessions closed whose process is gone", sessions=closed)
        await self._agents.judge_absent(store.ids(), self._clock.now())
        return closed


class Member:
    """This process among the others.

    ``takes_part`` is called in each renewal, ``inherits`` with the ids of processes that are
    gone for certain, ``leaves`` at the end, ``after_lapse`` once a lease began anew that
    had been taken for lapsed. ``alone`` says that no other process can use the database.
    """

    def __init__(
        self,
        database: Database,
        agents: AgentsService,
        clock: Clock,
        record: ProcessRecord,
        times: LeaseTimes,
        *,
        alone: bool,
    ) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._record = record
        self._times = times
        self._alone = alone
        self.takes_part: list[TakesPart] = []
        self.inherits: list[Callable[[UnitOfWork, Collection[str]], Awaitable[None]]] = []
        self.leaves: list[Callable[[UnitOfWork], Awaitable[None]]] = []
        self.after_lapse: list[Callable[[], None]] = []
        self._renewed: float | None = None
        self._steady_since = 0.0

    @property
    def process_id(self) -> str:
        """The id of this process, new at each start."""
        return self._record.process_id

    @property
    def may_judge(self) -> bool:
        """Whether this process may take others for gone whose lease lapsed.

        Not before its own was renewed for as long as a lease: where the database was away, all have
        lapsed, and each of them is about to renew.
        """
        if self._alone:
            return True
        held = asyncio.get_running_loop().time() - self._steady_since
        return self._renewed is not None and held >= self._times.length.total_seconds()

    async def join(self) -> int:
        """Begin the lease and close the sessions of processes that are gone for certain; returns how many.

        Those are, where this process is alone, all others, and else those that were the same
        part of the same supervisor. Call it before agents are let in.
        """
        async with self._database.unit_of_work() as work:
            former: list[str] = []
            if self._alone:
                former = await store.remove_all(work)
            elif self._record.part:
                former = await store.remove_former(work, self._record.part)
            if former:
                for inherit in self.inherits:
                    await inherit(work, former)
            await self._prolong(work)
            return await self._agents.close_sessions(work, store.ids(), self._clock.now())

    async def told(self, addresses: Mapping[str, str]) -> None:
        """Let others know where this process listens."""
        self._record = replace(self._record, addresses=addresses)
        async with self._database.unit_of_work() as work:
            await store.remove(work, self.process_id)
            await self._prolong(work)

    async def renew(self) -> bool:
        """Renew the lease and what hangs on it; returns False where it had been taken for lapsed."""
        async with self._database.unit_of_work() as work:
            return await self._prolong(work)

    async def leave(self) -> None:
        """End the lease: at once, others may take what this process had."""
        async with self._database.unit_of_work() as work:
            for leave in self.leaves:
                await leave(work)
            await store.remove(work, self.process_id)

    async def run(self) -> None:
        """Renew until cancelled. A database that cannot be had is asked again, and costs nobody a session."""
        while True:
            await asyncio.sleep(self._times.renewal.total_seconds())
            try:
                if not await self.renew():
                    _log.warning("the lease of this process had lapsed, and began anew")
                    for action in self.after_lapse:
                        action()
            except ServiceError as error:
                _log.warning("the lease of this process could not be renewed", error=error.message)
            except Exception:  # noqa: BLE001 # renewing must outlive whatever the database says
                _log.exception("the lease of this process could not be renewed")

    async def _prolong(self, work: UnitOfWork) -> bool:
        asked = asyncio.get_running_loop().time()
        now = await database_now(work.connection, self._clock)
        expire = now + duration_micros(self._times.length)
        known = await store.renew(work, self.process_id, expire)
        if not known:
            await store.add(work, replace(self._record, lease_expire_time=expire))
        for take_part in self.takes_part:
            await take_part(work, now, self._times.length, asked)
        work.after_commit(lambda: self._note_renewal(asked))
        return known

    def _note_renewal(self, asked: float) -> None:
        gap = None if self._renewed is None else asked - self._renewed
        if gap is None or gap > self._times.length.total_seconds():
            self._steady_since = asked
        self._renewed = asked
