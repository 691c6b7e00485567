"""Workflows over workers that die: every step is done, and one that was done is not done again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from devtools.postgres import PostgresServer
from tests.support.postgres import postgres as postgres


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hears(self, line: str) -> list[str]:
        """Read up to ``line``; returns the steps that were said meanwhile."""
        assert self.process.stdout is not None
        steps: list[str] = []
        while said := (await self.process.stdout.readline()).decode().strip():
            if said == line:
                return steps
            if said.startswith("step"):
                steps.append(said)
        raise AssertionError(f"it ended before it said {line!r}")

    async def killed(self) -> list[str]:
        """Read to the end of a worker that kills itself; returns the steps that it said."""
        assert self.process.stdout is not None
        said = (await self.process.stdout.read()).decode().splitlines()
        assert await self.process.wait() == -signal.SIGKILL
        return [line for line in said if line.startswith("step")]


@asynccontextmanager
async def worker(
    url: str, worker_id: str, *commands: str, dies_in: str = "", dies_after: str = ""
) -> AsyncIterator[_Worker]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.integration.workflows.worker", url, worker_id, dies_in, dies_after, *commands),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield _Worker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def embedded(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'workflows.db'}"


async def test_a_workflow_runs_its_steps_in_order_once_however_often_it_is_queued(embedded: str) -> None:
    async with worker(embedded, "w1", "queue:p1", "queue:p1") as first:
        assert await first.hears("ended p1") == ["step p1 begin", "step p1 second", "step p1 third"]


async def test_a_step_that_was_running_when_its_worker_died_runs_again(embedded: str) -> None:
    async with worker(embedded, "w1", "queue:p1", dies_in="second") as first:
        assert await first.killed() == ["step p1 begin", "step p1 second"]
    async with worker(embedded, "w2", "take:") as second:
        assert await second.hears("took p1") == []
        assert await second.hears("ended p1") == ["step p1 second", "step p1 third"]


async def test_what_a_living_worker_has_in_hand_is_not_taken_over(embedded: str) -> None:
    async with worker(embedded, "w1", "queue:p1", dies_in="second") as first:
        await first.killed()
    async with worker(embedded, "w2", "take:w1", "take:") as second:
        assert await second.hears("took") == []
        assert await second.hears("ended p1") == ["step p1 second", "step p1 third"]


@pytest.mark.slow
async def test_of_two_workers_the_one_that_lives_goes_on_with_what_the_other_had(
    postgres: PostgresServer,
) -> None:
    url = postgres.create_database("workflows").replace("postgresql://", "postgresql+psycopg://")
    async with worker(url, "w1", "queue:p1", dies_in="second") as first:
        assert (await first.killed())[-1] == "step p1 second"
    async with worker(url, "w2", "take:") as second, worker(url, "w3") as third:
        # Either may have it: they share the queue.
        reading = [asyncio.create_task(one.hears("ended p1")) for one in (second, third)]
        done, waiting = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        assert done.pop().result() == ["step p1 second", "step p1 third"]
