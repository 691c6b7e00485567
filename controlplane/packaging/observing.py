"""How long stages take, and how they end."""

from __future__ import annotations

from time import perf_counter

from controlplane.observability.metrics import Metrics
from controlplane.packaging.rules import Stage
from controlplane.packaging.stages import Job, StageDone, StageFailed, StageRun


def observed(stage: Stage, run: StageRun, metrics: Metrics) -> StageRun:
    """Return a stage that is measured: succeeded, failed, or cut off by a cancellation or a defect."""

    async def measured(job: Job) -> StageDone:
        began, outcome = perf_counter(), "cut_off"
        try:
            done = await run(job)
            outcome = "succeeded"
        except StageFailed:
            outcome = "failed"
            raise
        finally:
            metrics.stage_seconds.labels(stage.name, outcome).observe(perf_counter() - began)
        return done

    return measured
