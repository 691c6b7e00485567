"""Workers that are killed: the pipeline ends right, whichever is left, and nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane.packaging.rules import Stage
from controlplane.packaging.stages import Job, StageDone
from controlplane.storage.location import Postgres
from controlplane.storage.migrate import upgrade
from tests.integration.factory.factory_world import Stages, factory_of
from tests.support.postgres import database_url as database_url
from tests.support.postgres import postgres as postgres
from tests.support.streams import PATIENCE

ALL = [stage.name for stage in Stage]


@asynccontextmanager
async def worker(folder: Path, pipeline: str, *given: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a server as a process of its own, until the pipeline has ended or it kills itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.integration.factory.worker_program", str(folder), pipeline.partition("/")[2]),
        *given,
        stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("FLEETWRIGHT_")},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(process: asyncio.subprocess.Process) -> list[str]:
    """Return what a worker says to its end: the stages that it ran, and the state that it saw."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        lines = (await process.stdout.read()).decode().splitlines()
    return [line for line in lines if line.startswith(("ran ", "ended "))]


def ran(*stages: str) -> list[str]:
    return [f"ran {stage}" for stage in stages]


@pytest.fixture
async def left(folder: Path) -> str:
    """A pipeline that a server of the folder has begun, and left."""
    begun = asyncio.Event()

    async def never(job: Job) -> StageDone:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("the server ended")

    async with factory_of(folder, Stages(instead={Stage.INTAKE: never})) as factory:
        created = await factory.create()
        await asyncio.wait_for(begun.wait(), PATIENCE)
    return created.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", [one if one in ("BUILD", "STORE") else pytest.param(one, marks=pytest.mark.long) for one in ALL]
)
async def test_the_only_worker_goes_on_where_it_was_killed(folder: Path, left: str, stage: str) -> None:
    async with worker(folder, left, f"dies_in={stage}") as first:
        before = await told(first)
        assert await first.wait() == -signal.SIGKILL
    at = ALL.index(stage)
    assert before == ran(*ALL[: at + 1])
    async with worker(folder, left) as second:
        assert await told(second) == [*ran(*ALL[at:]), "ended PASSED"]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["after_begin", "before_commit", "after_commit"])
async def test_what_was_committed_is_not_done_again(folder: Path, left: str, place: str) -> None:
    async with worker(folder, left, f"failpoint=pipelines.{place}=kill@3") as first:
        before = await told(first)
    async with worker(folder, left) as second:
        after = await told(second)
    done = {"after_begin": 2, "before_commit": 3, "after_commit": 3}[place]
    assert before == ran(*ALL[:done])
    assert after == [*ran(*ALL[3 if place == "after_commit" else 2 :]), "ended PASSED"]


@pytest.mark.slow
async def test_of_two_workers_one_goes_on_with_what_the_killed_one_had(
    folder: Path, database_url: str
) -> None:
    await asyncio.to_thread(upgrade, Postgres(database_url))
    site = f"database_url={database_url}"
    async with factory_of(
        folder, database_url=database_url, roles="api", process_renewal="200ms", process_lease="1s"
    ) as factory:
        created = await factory.create()
        async with worker(folder, created.name, site, "roles=worker", "dies_in=SIGN") as first:
            assert await told(first) == ran("INTAKE", "BUILD", "SIGN")
            assert await first.wait() == -signal.SIGKILL
        async with (
            worker(folder, created.name, site, "roles=worker") as second,
            worker(folder, created.name, site, "roles=worker") as third,
        ):
            said = [await told(process) for process in (second, third)]
        assert sorted(
            [line for lines in said for line in lines], key=lambda line: line.startswith("ended")
        ) == [
            *ran(*ALL[2:]),
            "ended PASSED",
            "ended PASSED",
        ]
        ended = (await factory.calls.GetPipeline(pb2.GetPipelineRequest(name=created.name))).pipeline
        assert [stage.run_count for stage in ended.stages] == [1, 1, 2, 1, 1, 1, 1]
