"""Runs schedules: those of the process in their interval, those of the installation while they are held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from controlplane import failpoints
from controlplane.errors import ServiceError
from controlplane.schedules.leases import Leases, Turn, TurnLost

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Something done every so often: in each process, or ``once`` in the installation.

    What runs once gets its turn, and guards with it those writes that must not come
    from a process that has lost the schedule meanwhile.
    """

    name: str
    every: timedelta
    run: Callable[[Turn], Awaitable[object]]
    once: bool = False


class Schedules:
    """Runs schedules until stopped; ``leases`` are those of what runs once in the installation."""

    def __init__(
        self, schedules: Iterable[Schedule], failed: Callable[[str], None], leases: Leases | None = None
    ) -> None:
        self._schedules = list(schedules)
        self._failed = failed
        self._leases = leases
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; the first run of each comes after its first interval, or when it was due."""
        self._tasks = [
            asyncio.create_task(self._repeat(schedule), name=f"schedule {schedule.name}")
            for schedule in self._schedules
        ]

    async def stop(self) -> None:
        """End every schedule; a run that is at work is cancelled, and its transaction rolled back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, schedule: Schedule) -> None:
        while True:
            if schedule.once and self._leases is not None:
                await self._run_held(schedule, self._leases)
            else:
                await asyncio.sleep(schedule.every.total_seconds())
                await self.run_once(schedule)

    async def _run_held(self, schedule: Schedule, leases: Leases) -> None:
        turn = await leases.due(schedule.name)
        begin = leases.now()
        running = asyncio.create_task(self.run_once(schedule, turn))
        try:
            while not running.done():
                left = leases.left(turn)
                if left <= 0:
                    # Another process may run it by now.
                    _log.warning("a run was given up, for its lease lapsed", schedule=schedule.name)
                    return
                await asyncio.wait({running}, timeout=left)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        leases.ran(turn, begin)

    async def run_once(self, schedule: Schedule, turn: Turn | None = None) -> None:
        """Run one schedule now; each line that it logs has its name."""
        with structlog.contextvars.bound_contextvars(schedule=schedule.name):
            try:
                await schedule.run(turn or Turn(schedule.name))
                failpoints.hit("schedules.after_run")
            except TurnLost:
                _log.info("another process has taken the schedule over")
            except ServiceError as error:
                self._failed(schedule.name)
                _log.warning("a schedule could not run", error=error.message)
            except Exception:  # noqa: BLE001 # a schedule must outlive any failed run
                self._failed(schedule.name)
                _log.exception("a schedule failed")
