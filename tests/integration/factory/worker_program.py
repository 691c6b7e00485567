"""A server that runs pipelines as a process of its own: says each stage that it begins, and ends with them.

``python -m tests.integration.factory.worker_program FOLDER PIPELINE [SETTING=VALUE …]``, of which ``dies_in``
is the stage in which it kills itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from controlplane import failpoints
from controlplane.bootstrap import Server
from controlplane.packaging.rules import Decision, Stage
from controlplane.packaging.stages import Job, StageDone, StageRun
from controlplane.settings import Settings
from controlplane.trust.layout import load
from tests.support.in_process import QUIET
from tests.support.site import HOST

PORTS = {f"{name}_port": 0 for name in ("agents", "admin", "enrollment", "health")}
EAGER = {"process_renewal": "200ms", "process_lease": "1s", "presence_sweep": "200ms"}


def stage_that(stage: Stage, dies_in: str) -> StageRun:
    async def run(job: Job) -> StageDone:
        print("ran", stage.name, flush=True)
        if stage.name == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)
        decision = Decision.PASS if stage is Stage.POLICY else Decision.UNJUDGED
        return StageDone({"by": os.getpid()}, decision=decision)

    return run


async def main(folder: str, pipeline_id: str, *given: str) -> None:
    fields: dict[str, Any] = dict(one.split("=", 1) for one in given)
    dies_in = fields.pop("dies_in", "")
    failpoints.arm(fields.pop("failpoint", ""), "")
    settings = Settings(data_dir=Path(folder), bind_host=HOST, **{**PORTS, **QUIET, **EAGER, **fields})
    stages = {stage: stage_that(stage, dies_in) for stage in Stage}
    server = Server(settings, load(settings.data_dir), stages=stages)
    await server.start()
    print("serving", flush=True)
    while not (state := (await server.rooms.packaging.pipelines.get(pipeline_id)).pipeline.state).final:  # noqa: ASYNC110 # it may end in another process
        await asyncio.sleep(0.05)
    print("ended", state.name, flush=True)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
