"""Pipelines through a real server: queued, run by the engine of workflows, watched, cancelled, retried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane.packaging.rules import Decision, Stage
from controlplane.packaging.stages import Job, StageDone, StageFailed
from tests.integration.factory.factory_world import ENDED, Factory, Stages, factory_of, states
from tests.support.streams import PATIENCE

UNKNOWN = "pipelines/0123"


@pytest.fixture
async def factory(folder: Path) -> AsyncIterator[Factory]:
    async with factory_of(folder) as made:
        yield made


def refused(error: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    return error.value.code(), error.value.details() or ""


async def test_a_pipeline_runs_by_itself_and_says_what_its_stages_did(factory: Factory) -> None:
    created = await factory.create(
        source_commit="ab" * 20, source_repository="https://example.org/x", channel="stable"
    )
    assert (created.state, created.run_count, len(created.stages)) == (pb2.PIPELINE_STATE_QUEUED, 1, 7)
    assert created.build_id == created.name.partition("/")[2]
    ended = await factory.until(created.name)
    assert ended.state == pb2.PIPELINE_STATE_PASSED
    assert factory.stages.ran == [stage.name for stage in Stage]
    assert states(ended) == [pb2.STAGE_STATE_SUCCEEDED] * 7
    assert (ended.package_name, ended.vulnerabilities.unknown) == ("x", 2)
    assert [one.state for one in ended.signatures] == ["VERIFIED"]
    assert dict(ended.stages[0].tools) == {"tool": "1.0"}
    lines = await factory.log(created.name, follow=True)
    assert [line.number for line in lines] == list(range(1, 8))
    assert await factory.log(created.name, after=6) == lines[6:]


async def test_a_pipeline_on_demand_waits_until_it_is_executed(factory: Factory) -> None:
    created = await factory.create(on_demand=True)
    assert (created.state, created.run_count) == (pb2.PIPELINE_STATE_CREATED, 0)
    request = pb2.ExecutePipelineRequest(name=created.name)
    begun = (await factory.calls.ExecutePipeline(request)).pipeline
    assert begun.run_count == 1
    await factory.calls.ExecutePipeline(request)
    assert (await factory.until(created.name)).state == pb2.PIPELINE_STATE_PASSED
    assert len(factory.stages.ran) == 7
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await factory.calls.ExecutePipeline(request)
    assert refused(error)[0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_the_same_request_creates_one_pipeline(factory: Factory) -> None:
    artefact = await factory.artefact()
    first, again = [
        (
            await factory.calls.CreatePipeline(
                pb2.CreatePipelineRequest(artefact=artefact, on_demand=True, request_id="r1")
            )
        ).pipeline.name
        for _ in range(2)
    ]
    assert first == again
    with pytest.raises(grpc.aio.AioRpcError, match="request_id"):
        await factory.calls.CreatePipeline(pb2.CreatePipelineRequest(artefact=artefact, request_id="r1"))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"artefact": "artefacts/" + "0" * 64}, "artefact"),
        ({"channel": "nowhere"}, "channel"),
        ({"target_platform": "Linux on Intel"}, "target_platform"),
        ({"manifest": "[]"}, "manifest"),
        ({"manifest": "["}, "manifest"),
        ({"vex": "{}"}, "vex"),
        ({"build_id": "a\0b"}, "build_id"),
        ({"source_commit": "abc", "source_repository": "https://example.org/x"}, "source_commit"),
        ({"source_commit": "ab" * 20}, "source_repository"),
    ],
)
async def test_what_cannot_be_right_is_refused_by_its_field(
    factory: Factory, fields: dict[str, Any], named: str
) -> None:
    fields = {"artefact": await factory.artefact(), **fields}
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await factory.calls.CreatePipeline(pb2.CreatePipelineRequest(**fields))
    code, said = refused(error)
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert said.startswith(named)
    assert (await factory.calls.ListPipelines(pb2.ListPipelinesRequest())).total_size == 0


@pytest.mark.parametrize("call", ["Get", "Execute", "Cancel", "Retry"])
async def test_a_pipeline_that_is_not_there_is_not_found(factory: Factory, call: str) -> None:
    request = getattr(pb2, f"{call}PipelineRequest")(name=UNKNOWN)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await getattr(factory.calls, f"{call}Pipeline")(request)
    assert refused(error)[0] is grpc.StatusCode.NOT_FOUND


async def test_lists_are_paged_newest_first_and_know_what_was_signed(factory: Factory) -> None:
    names = [(await factory.create(build_id=f"b{number}")).name for number in range(3)]
    for name in names:
        await factory.until(name)
    first = await factory.calls.ListPipelines(pb2.ListPipelinesRequest(page_size=2))
    assert (first.total_size, len(first.pipelines)) == (3, 2)
    rest = await factory.calls.ListPipelines(
        pb2.ListPipelinesRequest(page_size=2, page_token=first.next_page_token)
    )
    found = [*first.pipelines, *rest.pipelines]
    assert {one.name for one in found} == set(names)
    assert not rest.next_page_token
    assert all(one.signatures and not one.stages for one in found)
    chosen = await factory.calls.ListPipelines(pb2.ListPipelinesRequest(filter='build_id = "b1"'))
    assert [one.name for one in chosen.pipelines] == [names[1]]
    with pytest.raises(grpc.aio.AioRpcError):
        await factory.calls.ListPipelines(
            pb2.ListPipelinesRequest(filter="state = PASSED", page_token=first.next_page_token)
        )


async def test_a_watch_tells_what_is_there_goes_on_where_it_was_and_says_what_leaves(folder: Path) -> None:
    may_end = asyncio.Event()

    async def waits(job: Job) -> StageDone:
        await may_end.wait()
        return StageDone({})

    async with factory_of(folder, Stages(instead={Stage.SBOM: waits})) as factory:
        created = await factory.create()
        await factory.until(created.name, lambda one: one.stage == pb2.STAGE_SBOM)
        running = factory.calls.WatchPipelines(pb2.WatchPipelinesRequest(filter="state = RUNNING"))
        first = await running.read()
        assert [one.name for one in first.pipelines] == [created.name]
        may_end.set()
        async with asyncio.timeout(PATIENCE):
            while (seen := await running.read()).pipelines[0].state < ENDED:
                pass
        assert seen.pipelines[0].state == pb2.PIPELINE_STATE_PASSED
        resumed = factory.calls.WatchPipelines(
            pb2.WatchPipelinesRequest(filter="state = RUNNING", resume_token=seen.resume_token)
        )
        nothing = factory.calls.WatchPipelines(pb2.WatchPipelinesRequest(filter='build_id = "none"'))
        assert not (await nothing.read()).pipelines, "an empty beginning is told too"
        resumed.cancel()


async def test_a_log_is_read_while_it_is_written(folder: Path) -> None:
    may_end = asyncio.Event()

    async def talks(job: Job) -> StageDone:
        job.say("warning", "half way; password=hunter2")
        await may_end.wait()
        return StageDone({})

    async with factory_of(folder, Stages(instead={Stage.INTAKE: talks})) as factory:
        created = await factory.create()
        call = factory.calls.WatchPipelineLog(pb2.WatchPipelineLogRequest(name=created.name, follow=True))
        async with asyncio.timeout(PATIENCE):
            [line] = (await call.read()).lines
            assert (line.level, line.stage) == ("warning", pb2.STAGE_INTAKE)
            assert "half way" in line.text
            assert "hunter2" not in line.text
            may_end.set()
            while (response := await call.read()) is not grpc.aio.EOF:
                last = response.lines[-1].text
        assert last == "STORE is done"


async def test_what_fails_is_retried_from_there(folder: Path) -> None:
    broken = True

    async def scans(job: Job) -> StageDone:
        if broken:
            raise StageFailed("STALE", "the advisories are old")
        return StageDone({}, counts=(0, 0, 0, 0, 0))

    async with factory_of(folder, Stages(instead={Stage.SCAN: scans})) as factory:
        created = await factory.create()
        failed = await factory.until(created.name)
        assert (failed.state, failed.reason) == (pb2.PIPELINE_STATE_ERROR, "SCAN: the advisories are old")
        assert failed.stages[4].reason_code == "STALE"
        broken = False
        factory.stages.ran.clear()
        request = pb2.RetryPipelineRequest(name=created.name)
        again = (await factory.calls.RetryPipeline(request)).pipeline
        assert again.run_count == 2
        assert (await factory.until(created.name)).state == pb2.PIPELINE_STATE_PASSED
        assert factory.stages.ran == ["SCAN", "POLICY", "STORE"]
        with pytest.raises(grpc.aio.AioRpcError, match="PASSED"):
            await factory.calls.RetryPipeline(request)


async def test_a_running_pipeline_is_cancelled_where_it_runs(folder: Path) -> None:
    async def waits(job: Job) -> StageDone:
        await asyncio.Event().wait()
        raise AssertionError("it was cancelled")

    async with factory_of(folder, Stages(instead={Stage.BUILD: waits})) as factory:
        created = await factory.create()
        await factory.until(created.name, lambda one: one.stage == pb2.STAGE_BUILD)
        request = pb2.CancelPipelineRequest(name=created.name)
        await factory.calls.CancelPipeline(request)
        assert (await factory.until(created.name)).state == pb2.PIPELINE_STATE_CANCELLED
        assert (await factory.calls.CancelPipeline(request)).pipeline.state == pb2.PIPELINE_STATE_CANCELLED
        waiting = await factory.create(on_demand=True)
        gone = await factory.calls.CancelPipeline(pb2.CancelPipelineRequest(name=waiting.name))
        assert gone.pipeline.state == pb2.PIPELINE_STATE_CANCELLED


async def test_what_policy_refuses_ends_refused_and_cannot_be_cancelled(folder: Path) -> None:
    async def refuse(job: Job) -> StageDone:
        return StageDone({}, decision=Decision.FAIL)

    async with factory_of(folder, Stages(instead={Stage.POLICY: refuse})) as factory:
        created = await factory.create()
        ended = await factory.until(created.name)
        assert (ended.state, ended.decision) == (pb2.PIPELINE_STATE_REFUSED, pb2.POLICY_DECISION_FAIL)
        assert ended.stages[6].state == pb2.STAGE_STATE_SKIPPED
        with pytest.raises(grpc.aio.AioRpcError, match="REFUSED"):
            await factory.calls.CancelPipeline(pb2.CancelPipelineRequest(name=created.name))


async def test_a_stopped_server_goes_on_with_its_pipelines_at_the_next_start(folder: Path) -> None:
    begun = asyncio.Event()

    async def waits(job: Job) -> StageDone:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("the server ended")

    async with factory_of(folder, Stages(instead={Stage.SIGN: waits})) as factory:
        created = await factory.create()
        await asyncio.wait_for(begun.wait(), PATIENCE)
    async with factory_of(folder) as factory:
        assert (await factory.until(created.name)).state == pb2.PIPELINE_STATE_PASSED
        assert factory.stages.ran[0] == "SIGN", "what was done is not done again"


async def test_a_defect_of_a_stage_ends_the_pipeline(folder: Path) -> None:
    async def no_json(job: Job) -> StageDone:
        return StageDone({"bad": object()})

    async with factory_of(folder, Stages(instead={Stage.INTAKE: no_json})) as factory:
        created = await factory.create()
        ended = await factory.until(created.name)
        assert (ended.state, ended.stages[0].reason_code) == (pb2.PIPELINE_STATE_ERROR, "INTERNAL")


async def test_metrics_tell_of_stages_and_uploads(factory: Factory) -> None:
    await factory.until((await factory.create()).name)
    site = factory.site
    assert await site.metric("fleetwright_stage_seconds_count", stage="SCAN", outcome="succeeded") == 1
    assert await site.metric("fleetwright_upload_bytes_total") == 2048
    assert site.server is not None
    await site.server.worker.measure()
    assert await site.metric("fleetwright_pipelines", state="QUEUED") == 0
