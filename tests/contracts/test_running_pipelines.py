"""Pipelines on real databases: stages in their order, once each, and only by who has the fence."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.errors import FailedPrecondition, Unavailable
from controlplane.packaging.dispatching import Dispatching, Steps
from controlplane.packaging.rules import Decision, PipelineState, Stage, StageState
from controlplane.packaging.running import Running, workflow_of
from controlplane.packaging.stages import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store.pipelines import PipelineRecord, StageRecord
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.wakeups import WakeUps
from controlplane.workflows import FIRST
from tests.contracts.agents_world import SetClock

ID = "p1"


class _Factory:
    """Stages that note that they ran, and do what a test gives them to do."""

    def __init__(self, database: Database, scratch: Path) -> None:
        self.database = database
        self.clock = SetClock()
        self.ran: list[str] = []
        self.instead: dict[Stage, StageRun] = {}
        self._scratch = scratch

    def worker(self) -> Running:
        stages: dict[Stage, StageRun] = {stage: self._stage(stage) for stage in Stage}
        return Running(self.database, WakeUps(), self.clock, stages, self._scratch)

    def _stage(self, stage: Stage) -> StageRun:
        async def run(job: Job) -> StageDone:
            self.ran.append(stage.name)
            if stage in self.instead:
                return await self.instead[stage](job)
            job.say("info", f"{stage.name} after {[before.name for before in job.outcomes]}")
            decision = Decision.PASS if stage is Stage.POLICY else Decision.UNJUDGED
            counts = (0, 1, 2, 0, 3) if stage is Stage.SCAN else None
            return StageDone({"stage": stage.name}, decision=decision, counts=counts)

        return run

    async def create(self) -> None:
        now = self.clock.micros()
        record = PipelineRecord(
            ID, "a" * 64, "x.whl", "", "", "", "", "stable", PipelineState.QUEUED, now, "", None, None,
            Decision.UNJUDGED, "b1", "", "", "", "", None, "ada", now, now, 1, 0, False, 0,
        )  # fmt: skip
        async with self.database.unit_of_work() as work:
            await stored.insert_pipeline(work, record)

    async def found(self) -> PipelineRecord:
        async with self.database.reading() as connection:
            found = await stored.find(connection, ID)
        assert found is not None
        return found

    async def stages(self) -> list[StageRecord]:
        async with self.database.reading() as connection:
            return (await stored.stages(connection, [ID]))[ID]


async def run(worker: Running, name: str = FIRST) -> list[str]:
    """Do the steps of the pipeline from one on; returns their names."""
    names = []
    while name:
        names.append(name)
        name = await worker.step(workflow_of(ID, 1), name)
    return names


@pytest_asyncio.fixture
async def factory(location: Location, tmp_path: Path) -> AsyncIterator[_Factory]:
    database = open_database(location)
    made = _Factory(database, tmp_path)
    await made.create()
    yield made
    await database.close()


async def test_stages_run_in_their_order_and_know_what_came_before(factory: _Factory) -> None:
    await run(factory.worker())
    assert factory.ran == [stage.name for stage in Stage]
    found = await factory.found()
    assert (found.state, found.decision, found.counts) == (
        PipelineState.PASSED,
        Decision.PASS,
        (0, 1, 2, 0, 3),
    )
    assert [stage.state for stage in await factory.stages()] == [StageState.SUCCEEDED] * 7
    async with factory.database.reading() as connection:
        lines = await stored.log_after(connection, ID, 0, 100)
    assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert lines[2].text == "SIGN after ['INTAKE', 'BUILD']"


async def test_a_stage_that_was_committed_is_not_run_again_by_a_step_that_is(factory: _Factory) -> None:
    worker = factory.worker()
    assert await worker.step(workflow_of(ID, 1), "INTAKE") == "BUILD"
    assert await worker.step(workflow_of(ID, 1), "INTAKE") == "BUILD"
    assert factory.ran == ["INTAKE"]


async def test_a_worker_that_was_taken_for_dead_commits_nothing(factory: _Factory) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(job: Job) -> StageDone:
        begun.set()
        await may_end.wait()
        return StageDone({"by": "slow"})

    factory.instead[Stage.BUILD] = slow
    first, second = factory.worker(), factory.worker()
    assert await first.step(workflow_of(ID, 1), "INTAKE") == "BUILD"
    late = asyncio.create_task(first.step(workflow_of(ID, 1), "BUILD"))
    await begun.wait()
    del factory.instead[Stage.BUILD]
    await run(second, "BUILD")
    may_end.set()
    assert await late == ""
    stages = await factory.stages()
    assert stages[1].outcome == {"stage": "BUILD"}
    assert (stages[1].run_count, (await factory.found()).state) == (2, PipelineState.PASSED)


async def test_a_failed_stage_ends_the_pipeline_with_its_reason(factory: _Factory) -> None:
    async def bad(job: Job) -> StageDone:
        raise StageFailed("PATH_ESCAPES", "../x leaves the folder")

    factory.instead[Stage.INTAKE] = bad
    await run(factory.worker())
    found, stages = await factory.found(), await factory.stages()
    assert (found.state, found.reason) == (PipelineState.ERROR, "INTAKE: ../x leaves the folder")
    assert (stages[0].state, stages[0].reason_code) == (StageState.FAILED, "PATH_ESCAPES")
    assert stages[1].state is StageState.PENDING
    assert await factory.worker().step(workflow_of(ID, 1), "BUILD") == "", "it has ended"


async def test_a_defect_says_nothing_of_itself_but_where_to_look(factory: _Factory) -> None:
    async def broken(job: Job) -> StageDone:
        raise RuntimeError("the password is hunter2")

    factory.instead[Stage.SBOM] = broken
    await run(factory.worker())
    found = await factory.found()
    assert found.state is PipelineState.ERROR
    assert "hunter2" not in found.reason
    assert (await factory.stages())[3].reason_code == "INTERNAL"


async def test_a_full_disk_is_told_as_one(factory: _Factory) -> None:
    async def full(job: Job) -> StageDone:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")

    factory.instead[Stage.SBOM] = full
    await run(factory.worker())
    found = await factory.found()
    assert found.state is PipelineState.ERROR
    assert "disk of the server is full" in found.reason
    assert "/secret" not in found.reason
    assert (await factory.stages())[3].reason_code == "DISK_FULL"


async def test_what_policy_refused_is_not_stored(factory: _Factory) -> None:
    async def refuse(job: Job) -> StageDone:
        return StageDone({}, decision=Decision.FAIL)

    factory.instead[Stage.POLICY] = refuse
    await run(factory.worker())
    assert (await factory.found()).state is PipelineState.REFUSED
    assert (await factory.stages())[6].state is StageState.SKIPPED
    assert "STORE" not in factory.ran


@pytest.mark.parametrize("running", [True, False])
async def test_a_cancelled_pipeline_ends_where_it_is(factory: _Factory, running: bool) -> None:
    worker = factory.worker()

    async def ask() -> None:
        async with factory.database.unit_of_work() as work:
            await stored.change(work, ID, cancel_requested=True)

    async def waits(job: Job) -> StageDone:
        await ask()
        worker.cancel(ID)
        await asyncio.Event().wait()
        raise AssertionError("it was cancelled")

    if running:
        factory.instead[Stage.SIGN] = waits
    else:
        await ask()
    await run(worker)
    assert (await factory.found()).state is PipelineState.CANCELLED
    assert factory.ran == (["INTAKE", "BUILD", "SIGN"] if running else [])


async def test_a_database_that_is_away_is_waited_for_and_is_no_failure(factory: _Factory) -> None:
    away = [Unavailable("UNAVAILABLE", "the database is away")]

    async def asks(job: Job) -> StageDone:
        if away:
            raise away.pop()
        return StageDone({})

    factory.instead[Stage.BUILD] = asks
    steps, name = Steps(factory.worker(), timedelta()), "INTAKE"
    while name:
        name = await steps.step(workflow_of(ID, 1), name)
    assert (await factory.found()).state is PipelineState.PASSED
    assert (await factory.stages())[1].run_count == 2


async def test_what_a_room_refuses_a_stage_is_its_reason(factory: _Factory) -> None:
    async def refused(job: Job) -> StageDone:
        raise FailedPrecondition("TRUST_NOT_SET_UP", "there are no keys")

    factory.instead[Stage.SIGN] = refused
    await run(factory.worker())
    assert (await factory.stages())[2].reason_code == "TRUST_NOT_SET_UP"


async def test_a_defect_behind_a_stage_ends_the_pipeline(factory: _Factory) -> None:
    async def no_json(job: Job) -> StageDone:
        return StageDone({"bad": object()})

    factory.instead[Stage.SBOM] = no_json
    steps, name = Steps(factory.worker()), "INTAKE"
    while name:
        name = await steps.step(workflow_of(ID, 1), name)
    found, stages = await factory.found(), await factory.stages()
    assert (found.state, stages[3].state) == (PipelineState.ERROR, StageState.FAILED)
    assert stages[3].reason_code == "INTERNAL"


class _Engine:
    """Knows which workflows there are and does nothing with them; ``over`` are those that have ended."""

    def __init__(self) -> None:
        self.started = 0
        self.queued: list[str] = []
        self.over: set[str] = set()

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.started = 0

    async def queue(self, workflow_id: str) -> None:
        self.queued.append(workflow_id)

    async def take_over(self, living: Collection[str]) -> list[str]:
        return []

    async def alive(self, workflow_ids: Collection[str]) -> set[str]:
        return set(workflow_ids) & set(self.queued) - self.over


async def test_what_waits_is_queued_once_and_the_engine_starts_with_it(factory: _Factory) -> None:
    engine = _Engine()
    dispatching = Dispatching(factory.database, WakeUps(), factory.worker(), engine)
    await dispatching.look()
    await dispatching.look()
    assert (engine.started, engine.queued) == (1, [workflow_of(ID, 1)])
    await dispatching.stop()
    await dispatching.look()
    assert engine.started == 0, "what ends begins nothing"


async def test_without_pipelines_no_engine_is_started(factory: _Factory) -> None:
    await run(factory.worker())
    engine = _Engine()
    dispatching = Dispatching(factory.database, WakeUps(), factory.worker(), engine)
    await dispatching.look()
    assert await dispatching.take_over([]) == []
    assert engine.started == 0


async def test_a_pipeline_whose_workflow_is_gone_or_over_gets_another_one(factory: _Factory) -> None:
    worker, engine = factory.worker(), _Engine()
    dispatching = Dispatching(factory.database, WakeUps(), worker, engine)
    await worker.step(workflow_of(ID, 1), "INTAKE")
    assert await dispatching.take_over([]) == [], "it had none, and has the one that it needs now"
    assert engine.queued == [workflow_of(ID, 1)]
    engine.over.add(workflow_of(ID, 1))
    assert await dispatching.take_over([]) == [workflow_of(ID, 2)]
    assert (await factory.found()).run_count == 2
    assert await dispatching.take_over([]) == []
