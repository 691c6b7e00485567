"""Schedules: a failed run is counted and does not end them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from controlplane.errors import Unavailable
from controlplane.schedules import Schedule, Schedules, Turn

OFTEN = timedelta(microseconds=1)


class Work:
    """Something done again and again, which fails in the ways given first."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.runs = 0
        self.active = 0
        self.enough = asyncio.Event()

    async def run(self, turn: Turn) -> None:
        self.active += 1
        assert self.active == 1, "runs of one schedule overlap"
        self.runs += 1
        await asyncio.sleep(0)
        self.active -= 1
        if self.failures:
            raise self.failures.pop(0)
        if self.runs >= 4:
            self.enough.set()


async def test_failed_runs_are_counted_and_the_next_ones_come() -> None:
    work, failed = Work(Unavailable("UNAVAILABLE", "the disk is full"), ValueError("a bug")), list[str]()
    schedules = Schedules([Schedule("sweep", OFTEN, work.run)], failed.append)
    schedules.start()
    await asyncio.wait_for(work.enough.wait(), 10)
    await schedules.stop()
    assert failed == ["sweep", "sweep"]
    runs = work.runs
    await asyncio.sleep(0)
    assert work.runs == runs


async def test_one_that_hangs_holds_up_no_other_and_is_ended_by_stop() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(_turn: Turn) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    work = Work()
    schedules = Schedules([Schedule("hangs", OFTEN, hang), Schedule("works", OFTEN, work.run)], pytest.fail)
    schedules.start()
    await asyncio.wait_for(asyncio.gather(begun.wait(), work.enough.wait()), 10)
    await schedules.stop()
    assert ended.is_set()


async def test_the_first_run_comes_after_the_first_interval() -> None:
    work = Work()
    schedules = Schedules([Schedule("later", timedelta(hours=1), work.run)], pytest.fail)
    schedules.start()
    await asyncio.sleep(0)
    await schedules.stop()
    assert work.runs == 0


async def test_one_that_never_started_can_be_stopped() -> None:
    await Schedules([Schedule("never", OFTEN, Work().run)], pytest.fail).stop()
