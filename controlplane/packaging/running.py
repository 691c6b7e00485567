"""Pipelines on a worker: each stage as a step of a durable workflow, committed behind a fence.

A step may run twice: when its worker died, or was only taken for dead and goes on beside the one that took
its place. Every step that begins takes the next fence of its pipeline, and only who holds the last one may
commit.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from controlplane import failpoints
from controlplane.clock import Clock, to_micros
from controlplane.errors import ServiceError, Unavailable
from controlplane.ids import new_id
from controlplane.packaging import rules
from controlplane.packaging.blobs import FULL
from controlplane.packaging.logs import Log
from controlplane.packaging.rules import PipelineState, Stage, StageState
from controlplane.packaging.stages import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store.pipelines import PipelineRecord
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.wakeups import WakeUps
from controlplane.workflows import FIRST

TOPIC = "pipelines"
"""The wake-up that says that a pipeline changed."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Begun:
    """A stage that this worker has begun; ``fence`` is what it commits behind."""

    stage: Stage
    fence: int
    pipeline: PipelineRecord
    outcomes: Mapping[Stage, Mapping[str, Any]]


class Running:
    """Does the steps of pipelines. ``scratch`` is a folder on a disk of this machine's own."""

    def __init__(
        self,
        database: Database,
        wakeups: WakeUps,
        clock: Clock,
        stages: Mapping[Stage, StageRun],
        scratch: Path,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._stages = stages
        self._scratch = scratch
        self._under_way: dict[str, asyncio.Task[StageDone]] = {}

    async def step(self, workflow_id: str, name: str) -> str:
        """Do one step of a workflow, see ``workflows.Step``: a stage by its name, or find the first."""
        pipeline_id = pipeline_of(workflow_id)
        stage = None if name == FIRST else Stage[name]
        begun = await self._begin(pipeline_id, stage)
        if not isinstance(begun, _Begun):
            return begun
        failpoints.hit("pipelines.after_begin")
        log = Log(self._database, self._wakeups, self._clock, pipeline_id, begun.stage)
        try:
            done = await self._run(begun, log)
        except StageFailed as failed:
            await log.close()
            return await self._commit_failure(begun, failed)
        except Unavailable:
            await log.close()
            raise
        await log.close()
        failpoints.hit("pipelines.before_commit")
        following = await self._commit(begun, done)
        failpoints.hit("pipelines.after_commit")
        return following

    @property
    def here(self) -> list[str]:
        """The pipelines of which a stage runs in this process."""
        return list(self._under_way)

    def cancel(self, pipeline_id: str) -> None:
        """End the stage of a pipeline that runs here, if one does."""
        if task := self._under_way.get(pipeline_id):
            task.cancel()

    async def give_up(self, workflow_id: str) -> str:
        """End the pipeline of a workflow in error, because of a defect of the server; returns ""."""
        async with self._database.unit_of_work() as work:
            pipeline = await stored.find(work.connection, pipeline_of(workflow_id), lock=True)
            if pipeline is None or pipeline.state.final:
                return ""
            reason = f"a defect of the server; its log knows it by the workflow {workflow_id}"
            if pipeline.stage is not None:
                await stored.change_stage(
                    work,
                    pipeline.pipeline_id,
                    pipeline.stage,
                    state=int(StageState.FAILED),
                    end_time=to_micros(self._clock.now()),
                    reason=reason,
                    reason_code="INTERNAL",
                )
            await self._end(work, pipeline, PipelineState.ERROR, reason)
        return ""

    async def _begin(self, pipeline_id: str, stage: Stage | None) -> _Begun | str:
        """Begin a stage, or return the name of the next step where this one is done, "" for none."""
        async with self._database.unit_of_work() as work:
            pipeline = await stored.find(work.connection, pipeline_id, lock=True)
            if pipeline is None or pipeline.state.final:
                return ""
            if pipeline.cancel_requested:
                await self._end(work, pipeline, PipelineState.CANCELLED, "cancelled")
                return ""
            known = (await stored.stages(work.connection, [pipeline_id])).get(pipeline_id, [])
            first = rules.first_to_run({one.stage: one.state for one in known})
            if first is None or (stage is not None and first > stage):
                # It was committed, and whoever did it could not say so any more.
                return first.name if first else ""
            fence = await self._started(work, pipeline, first)
        outcomes = {one.stage: one.outcome for one in known if one.stage < first}
        return _Begun(first, fence, pipeline, outcomes)

    async def _started(self, work: UnitOfWork, pipeline: PipelineRecord, stage: Stage) -> int:
        now, fence = to_micros(self._clock.now()), pipeline.fence + 1
        [known] = [
            one
            for one in (await stored.stages(work.connection, [pipeline.pipeline_id]))[pipeline.pipeline_id]
            if one.stage is stage
        ]
        await stored.change_stage(
            work,
            pipeline.pipeline_id,
            stage,
            state=int(StageState.RUNNING),
            start_time=now,
            end_time=None,
            reason="",
            reason_code="",
            run_count=known.run_count + 1,
        )
        fresh = pipeline.state is not PipelineState.RUNNING
        await stored.change(
            work,
            pipeline.pipeline_id,
            state=int(PipelineState.RUNNING),
            state_time=now if fresh else pipeline.state_time,
            stage=int(stage),
            fence=fence,
            reason="",
            update_time=now,
        )
        work.after_commit(lambda: self._wakeups.notify(TOPIC))
        return fence

    async def _run(self, begun: _Begun, log: Log) -> StageDone:
        pipeline_id = begun.pipeline.pipeline_id
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix=f"{begun.stage.name.lower()}-") as folder:
            job = Job(begun.pipeline, begun.outcomes, Path(folder), log.say)
            task = asyncio.ensure_future(self._stages[begun.stage](job))
            self._under_way[pipeline_id] = task
            try:
                return await task
            except (StageFailed, Unavailable):
                # What cannot be had now is no failure of the stage: the step is done again.
                raise
            except ServiceError as error:
                raise StageFailed(error.reason, error.message) from error
            except asyncio.CancelledError:
                if not task.cancelled() or _cancelling():
                    raise
                raise StageFailed("CANCELLED", "it was cancelled while it ran") from None
            except Exception as error:
                raise self._defect(begun, error) from error
            finally:
                del self._under_way[pipeline_id]

    def _defect(self, begun: _Begun, error: Exception) -> StageFailed:
        """Return what is said of an error that no stage knows."""
        if isinstance(error, OSError) and error.errno in FULL:
            _log.error("stage failed: a disk is full", stage=begun.stage.name, error=str(error))
            return StageFailed(
                "DISK_FULL", "the disk of the packages, or of scratch files, is full: free some, and retry"
            )
        incident = new_id(to_micros(self._clock.now()))
        pipeline = begun.pipeline.pipeline_id
        _log.error(
            "stage failed", stage=begun.stage.name, pipeline=pipeline, incident=incident, exc_info=error
        )
        return StageFailed("INTERNAL", f"a defect of the server; its log knows it as {incident}")

    async def _commit(self, begun: _Begun, done: StageDone) -> str:
        async with self._database.unit_of_work() as work:
            pipeline = await self._still_ours(work, begun)
            if pipeline is None:
                return ""
            now = to_micros(self._clock.now())
            await stored.change_stage(
                work,
                pipeline.pipeline_id,
                begun.stage,
                state=int(StageState.SUCCEEDED),
                end_time=now,
                report=done.report(),
                outcome=done.outcome,
            )
            await self._found(work, pipeline.pipeline_id, done, now)
            following = begun.stage.following
            if following is not None and not rules.skipped_after(begun.stage, done.decision):
                return following.name
            if following is not None:
                await stored.change_stage(
                    work, pipeline.pipeline_id, following, state=int(StageState.SKIPPED)
                )
            decision = pipeline.decision if done.decision is rules.Decision.UNJUDGED else done.decision
            await self._end(work, pipeline, rules.end_of(decision), "")
        return ""

    async def _found(self, work: UnitOfWork, pipeline_id: str, done: StageDone, now: int) -> None:
        values: dict[str, Any] = {**done.facts, "update_time": now}
        if done.counts is not None:
            names = ("critical", "high", "medium", "low", "unknown")
            values |= dict(zip(names, done.counts, strict=True))
        if done.decision is not rules.Decision.UNJUDGED:
            values["decision"] = int(done.decision)
        await stored.change(work, pipeline_id, **values)
        work.after_commit(lambda: self._wakeups.notify(TOPIC))

    async def _commit_failure(self, begun: _Begun, failed: StageFailed) -> str:
        async with self._database.unit_of_work() as work:
            pipeline = await self._still_ours(work, begun)
            if pipeline is None:
                return ""
            await stored.change_stage(
                work,
                pipeline.pipeline_id,
                begun.stage,
                state=int(StageState.FAILED),
                end_time=to_micros(self._clock.now()),
                reason=str(failed),
                reason_code=failed.code,
            )
            state = PipelineState.CANCELLED if pipeline.cancel_requested else PipelineState.ERROR
            await self._end(work, pipeline, state, f"{begun.stage.name}: {failed}")
        return ""

    async def _still_ours(self, work: UnitOfWork, begun: _Begun) -> PipelineRecord | None:
        pipeline = await stored.find(work.connection, begun.pipeline.pipeline_id, lock=True)
        if pipeline is None or pipeline.fence != begun.fence:
            _log.warning("another worker has the pipeline", pipeline=begun.pipeline.pipeline_id)
            return None
        return pipeline

    async def _end(
        self, work: UnitOfWork, pipeline: PipelineRecord, state: PipelineState, reason: str
    ) -> None:
        now = to_micros(self._clock.now())
        await stored.change(
            work, pipeline.pipeline_id, state=int(state), state_time=now, reason=reason, update_time=now
        )
        work.after_commit(lambda: self._wakeups.notify(TOPIC))


def workflow_of(pipeline_id: str, run: int) -> str:
    """Return the id of the workflow of a pipeline's run, which counts from 1."""
    return f"{pipeline_id}.{run}"


def pipeline_of(workflow_id: str) -> str:
    """Return the pipeline of a workflow."""
    return workflow_id.rpartition(".")[0]


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
