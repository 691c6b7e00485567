"""Periodic work: sweeps and upkeep.

One process serves a data folder (its lock sees to that), so a schedule here runs
once in the whole installation. A run that fails is logged and counted, and the
next one comes in its time; runs of one schedule never overlap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from controlplane.errors import ServiceError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Something done every so often."""

    name: str
    every: timedelta
    run: Callable[[], Awaitable[object]]


class Schedules:
    """Runs schedules until stopped."""

    def __init__(self, schedules: list[Schedule], failed: Callable[[str], None]) -> None:
        self._schedules = schedules
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; the first run of each comes after its first interval."""
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
            await asyncio.sleep(schedule.every.total_seconds())
            await self.run_once(schedule)

    async def run_once(self, schedule: Schedule) -> None:
        """Run one schedule now; each line that it logs has its name."""
        with structlog.contextvars.bound_contextvars(schedule=schedule.name):
            try:
                await schedule.run()
            except ServiceError as error:
                self._failed(schedule.name)
                _log.warning("a schedule could not run", error=error.message)
            except Exception:  # noqa: BLE001 # a schedule must outlive any failed run
                self._failed(schedule.name)
                _log.exception("a schedule failed")
