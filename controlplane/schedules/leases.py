"""Which schedules of the installation this process holds, and until when it may run them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

from controlplane.clock import duration_micros
from controlplane.schedules import store
from controlplane.schedules.store import Held, Run
from controlplane.storage.unit_of_work import UnitOfWork

_log = structlog.get_logger(__name__)


class TurnLost(Exception):
    """Another process has taken the schedule over; what this run has not committed is its to do."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to one run of a schedule; ``fence`` is 0 of one that every process runs for itself."""

    name: str
    fence: int = 0

    async def guard(self, work: UnitOfWork) -> None:
        """Let ``work`` commit only while no other process has taken over. Raises ``TurnLost``."""
        if self.fence and await store.fence(work.connection, self.name) != self.fence:
            raise TurnLost(self.name)


class Leases:
    """The leases of one process on schedules, by the clock of the database and the loop's own.

    ``renew`` is called in the transaction that renews the lease of the process itself.
    """

    def __init__(self, holder: str, every: Mapping[str, timedelta]) -> None:
        self._holder = holder
        self._every = dict(every)
        self._held: dict[str, Held] = {}
        self._runs: dict[str, Run] = {}
        self._until = float("-inf")
        self._anchor = (0.0, 0)
        self._changed = asyncio.Condition()

    async def renew(self, work: UnitOfWork, now: int, length: timedelta, asked: float) -> None:
        """Renew what is held, take over what nobody holds, and write down the runs since the last time.

        ``now`` is the database's, ``asked`` the loop's time before that was asked for: the lease is
        good for ``length`` from then on.
        """
        runs = dict(self._runs)
        first = {name: now + duration_micros(every) for name, every in self._every.items()}
        if not self._held:
            await store.add_missing(work, first)
        await store.record(work, self._holder, list(runs.values()))
        expire = now + duration_micros(length)
        held = await store.hold(work, self._holder, list(self._every), now=now, expire=expire)

        def committed() -> None:
            for name, run in runs.items():
                if self._runs.get(name) is run:
                    del self._runs[name]
            self._now_holds(held, asked + length.total_seconds(), (asked, now))

        work.after_commit(committed)

    async def give_up(self, work: UnitOfWork) -> None:
        """Let others have everything at once, after what ran is written down."""
        await store.record(work, self._holder, list(self._runs.values()))
        await store.give_up(work, [self._holder])
        work.after_commit(lambda: self._now_holds([], float("-inf"), self._anchor))

    @staticmethod
    async def free(work: UnitOfWork, holders: Collection[str]) -> None:
        """Let others have at once what processes held that are gone for certain."""
        await store.give_up(work, holders)

    def _now_holds(self, held: list[Held], until: float, anchor: tuple[float, int]) -> None:
        before = {name: one.fence for name, one in self._held.items()}
        self._held = {one.name: self._newest(one) for one in held}
        self._until, self._anchor = until, anchor
        after = {name: one.fence for name, one in self._held.items()}
        if before != after:
            _log.debug("schedules held", now=sorted(after), before=sorted(before))
        asyncio.get_running_loop().create_task(self._tell())

    def _newest(self, held: Held) -> Held:
        run = self._runs.get(held.name)
        return held if run is None else Held(held.name, held.fence, run.next_due)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- for who runs them

    def left(self, turn: Turn) -> float:
        """Return for how many seconds a turn is still good, 0 where it is not."""
        held = self._held.get(turn.name)
        if held is None or held.fence != turn.fence:
            return 0.0
        return max(0.0, self._until - asyncio.get_running_loop().time())

    async def due(self, name: str) -> Turn:
        """Wait until this process holds a schedule and its next run is due."""
        async with self._changed:
            while True:
                held = self._held.get(name)
                turn = Turn(name, held.fence if held else 0)
                wait = None
                if held is not None and self.left(turn) > 0:
                    wait = (held.next_due - self.now()) / 1_000_000
                    if wait <= 0:
                        return turn
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    def ran(self, turn: Turn, begin: int) -> None:
        """Note that a run that began at ``begin`` is over; the next one is due an interval after now."""
        now = self.now()
        run = Run(turn.name, begin, now, now + duration_micros(self._every[turn.name]))
        self._runs[turn.name] = run
        held = self._held.get(turn.name)
        if held is not None:
            self._held[turn.name] = Held(held.name, held.fence, run.next_due)

    def now(self) -> int:
        """Return the database's time, in microseconds, as the loop has counted on from the last renewal."""
        asked, micros = self._anchor
        return micros + int((asyncio.get_running_loop().time() - asked) * 1_000_000)
