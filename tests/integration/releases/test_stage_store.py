"""The stage STORE over real releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.packaging.rules import Decision, PipelineState, Stage
from controlplane.packaging.stages import Job, StageFailed
from controlplane.packaging.stages.store import store
from controlplane.packaging.store import pipelines
from tests.contracts.releases_world import PATH, SHA256, World

SIGNED = {Stage.SIGN: {"package": {"sha256": SHA256, "size": 1160, "file_name": "curl-8.1.deb"}}}


async def job(made: World, tmp_path: Path, said: list[str], outcomes: Any = SIGNED) -> Job:
    async with made.database.reading() as connection:
        pipeline = await pipelines.find(connection, "p1")
    assert pipeline is not None
    return Job(pipeline, outcomes, tmp_path, lambda _level, text: said.append(text))


async def test_it_releases_to_the_channel_of_its_pipeline(made: World, tmp_path: Path) -> None:
    await made.add(state=PipelineState.RUNNING)
    said: list[str] = []
    done = await store(made.releases)(await job(made, tmp_path, said))
    assert done.outcome["channel"] == "stable"
    assert done.outcome["target_path"] == PATH
    assert done.outcome["versions"] == {
        "root": 1, "targets": 1, "stable": 2, "beta": 1, "snapshot": 2, "timestamp": 2,
    }  # fmt: skip
    assert done.inputs == {"package": SHA256}
    assert await made.releases.released(done.outputs["attestations.jsonl"])
    assert said[-1].startswith(f"released as {PATH}; metadata: root 1")


async def test_run_again_after_a_crash_it_is_the_same(made: World, tmp_path: Path) -> None:
    await made.add(state=PipelineState.RUNNING)
    one = await store(made.releases)(await job(made, tmp_path, []))
    two = await store(made.process())(await job(made, tmp_path, []))
    assert one == two


async def test_what_is_refused_fails_with_its_reason(made: World, tmp_path: Path) -> None:
    await made.add(decision=Decision.FAIL, state=PipelineState.RUNNING)
    with pytest.raises(StageFailed, match="policy does not let") as failed:
        await store(made.releases)(await job(made, tmp_path, []))
    assert failed.value.code == "PACKAGE_NOT_RELEASED"
    with pytest.raises(StageFailed, match="SIGN left no package"):
        await store(made.releases)(await job(made, tmp_path, [], {}))
    await made.decide(Decision.PASS)
    with pytest.raises(StageFailed, match="trust init") as failed:
        await store(made.process(tmp_path / "none"))(await job(made, tmp_path, []))
    assert failed.value.code == "TRUST_NOT_SET_UP"


async def test_bytes_that_are_gone_fail_for_now(made: World, tmp_path: Path) -> None:
    await made.add(state=PipelineState.RUNNING, stored=False)
    with pytest.raises(StageFailed, match="gone or damaged") as failed:
        await store(made.releases)(await job(made, tmp_path, []))
    assert failed.value.code == "STORE_UNAVAILABLE"
    assert (await made.releases.repository.state()).versions["stable"] == 1
