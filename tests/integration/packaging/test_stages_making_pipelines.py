"""The making stages as steps of pipelines: what a worker leaves behind that dies, and what a cancel ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane import failpoints
from controlplane.packaging.isolation import guarding
from controlplane.packaging.rules import Decision, PipelineState, Stage, StageState
from controlplane.packaging.running import Running, workflow_of
from controlplane.packaging.signing.keys import OriginKey
from controlplane.packaging.stages import Job, StageDone, StageRun
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store.pipelines import PipelineRecord
from controlplane.wakeups import WakeUps
from controlplane.workflows import FIRST
from tests.integration.packaging.making_world import MAKING, World
from tests.unit.packaging.archives.good import GOOD


class Died(BaseException):
    """The worker was killed here."""


async def _rest(job: Job) -> StageDone:
    """Stand in for the stages of others."""
    return StageDone({}, decision=Decision.PASS if job.outcomes.keys() >= {Stage.SCAN} else Decision.UNJUDGED)


class _Pipeline:
    """A pipeline in the database."""

    def __init__(self, world: World, pipeline_id: str) -> None:
        self.world = world
        self.pipeline_id = pipeline_id

    def worker(self, name: str) -> Running:
        stages: dict[Stage, StageRun] = {
            stage: self.world.stage(stage) if stage in MAKING else _rest for stage in Stage
        }
        scratch = self.world.folder / name
        scratch.mkdir()
        return Running(self.world.database, WakeUps(), self.world.clock, stages, scratch)

    async def run(self, worker: Running, name: str = FIRST) -> None:
        while name:
            name = await worker.step(workflow_of(self.pipeline_id, 1), name)

    async def found(self) -> PipelineRecord:
        async with self.world.database.reading() as connection:
            found = await stored.find(connection, self.pipeline_id)
        assert found is not None
        return found

    async def outcome(self, stage: Stage) -> Any:
        async with self.world.database.reading() as connection:
            stages = (await stored.stages(connection, [self.pipeline_id]))[self.pipeline_id]
        return stages[stage - 1].outcome

    async def log(self) -> list[str]:
        async with self.world.database.reading() as connection:
            return [line.text for line in await stored.log_after(connection, self.pipeline_id, 0, 1_000)]


async def created(world: World, kind: str, file_name: str = "") -> _Pipeline:
    name, content = GOOD[kind]
    record = await world.pipeline(file_name or name, content, state=PipelineState.QUEUED, stage=None, fence=0)
    async with world.database.unit_of_work() as work:
        await stored.insert_pipeline(work, record)
    return _Pipeline(world, record.pipeline_id)


async def test_a_pipeline_knows_its_package_and_tells_what_it_did(world: World, origin: OriginKey) -> None:
    world.origin = origin
    pipeline = await created(world, "deb")
    await pipeline.run(pipeline.worker("one"))
    found = await pipeline.found()
    assert (found.state, found.reason) == (PipelineState.PASSED, "")
    assert (found.artefact_type, found.package_name, found.package_version) == ("deb", "demo", "1:2.0-1")
    assert found.target_platform == "linux/amd64"
    assert found.package == (await pipeline.outcome(Stage.SIGN))["package"]["sha256"]
    assert "deb demo 1:2.0-1 for amd64" in await pipeline.log()


async def test_a_bad_artefact_ends_its_pipeline_with_the_readers_reason(world: World) -> None:
    pipeline = await created(world, "wheel", file_name="other-9-py3-none-any.whl")
    await pipeline.run(pipeline.worker("one"))
    found = await pipeline.found()
    assert found.state is PipelineState.ERROR
    assert found.reason.startswith("INTAKE: other-9-py3-none-any.whl: ")
    async with world.database.reading() as connection:
        [intake, *_] = (await stored.stages(connection, [pipeline.pipeline_id]))[pipeline.pipeline_id]
    assert (intake.state, intake.reason_code) == (StageState.FAILED, "NOT_WHAT_IT_SAYS")


@pytest.mark.parametrize(
    "place", ["pipelines.after_begin", "pipelines.before_commit", "pipelines.after_commit"]
)
@pytest.mark.parametrize("stage", MAKING)
async def test_another_worker_goes_on_where_one_died_and_comes_to_one_package(
    world: World, origin: OriginKey, monkeypatch: pytest.MonkeyPatch, stage: Stage, place: str
) -> None:
    world.origin = origin
    pipeline = await created(world, "deb")
    hits = 0

    def hit(name: str) -> None:
        nonlocal hits
        hits += name == place
        if hits == int(stage):
            hits = 100
            raise Died

    with monkeypatch.context() as armed:
        armed.setattr(failpoints, "hit", hit)
        with pytest.raises(Died):
            await pipeline.run(pipeline.worker("one"))
    await pipeline.run(pipeline.worker("two"), stage.name)
    found = await pipeline.found()
    assert found.state is PipelineState.PASSED
    signed = await pipeline.outcome(Stage.SIGN)
    assert found.package == signed["package"]["sha256"]
    assert _finals(world) == {found.package}


def _finals(world: World) -> set[str]:
    """Return the digests of all signed packages in the store."""
    stored_files = (path for path in (world.folder / "blobs").rglob("*") if path.is_file())
    return {path.name for path in stored_files if b"_gpgorigin" in path.read_bytes()[8:]}


async def test_a_cancelled_stage_ends_its_process_and_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = await created(world, "sdist")
    worker, started, tell = pipeline.worker("one"), asyncio.Event(), guarding._tell

    def told(process: asyncio.subprocess.Process, line: bytes) -> None:
        tell(process, line)
        started.set()

    monkeypatch.setattr(guarding, "_tell", told)
    running = asyncio.create_task(pipeline.run(worker))
    await started.wait()
    async with world.database.unit_of_work() as work:
        await stored.change(work, pipeline.pipeline_id, cancel_requested=True)
    worker.cancel(pipeline.pipeline_id)
    await running
    assert (await pipeline.found()).state is PipelineState.CANCELLED
    assert _left(world.folder / "scratch") == []
    assert _left(world.folder / "one") == []


def _left(folder: Path) -> list[Path]:
    return list(folder.iterdir())
