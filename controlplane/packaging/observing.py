"""How long stages take, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from controlplane.observability.metrics import Metrics
from controlplane.packaging.rules import Stage
from controlplane.packaging.stages import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.throughput import Throughput


class CountedThroughput(Throughput):
    """A throughput that tells ``count`` what passes."""

    def __init__(self, rate: int, burst: int, count: Callable[[float], None]) -> None:
        super().__init__(rate, burst)
        self._count = count

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes may pass."""
        await super().take(size)
        self._count(size)


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
