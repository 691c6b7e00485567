"""Deployments on real databases: what befalls a task or is said of it stands in them with the same commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, text

from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound
from controlplane.filtering import read
from controlplane.packaging.deploying import FILTER
from controlplane.packaging.deployment.rules import DeploymentStatus as S
from controlplane.packaging.deployment.rules import Standing
from controlplane.packaging.rules import Decision
from controlplane.packaging.store.deployments import DeploymentRecord
from controlplane.packaging.store.tables import packages
from controlplane.storage.location import Location
from controlplane.tasks.messages import install_of
from controlplane.tasks.records import Chosen, Install
from controlplane.tasks.rules import OfflinePolicy, Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.deployments_world import (
    OTHER,
    PACKAGE,
    DeploymentsWorld,
    open_deployments_world,
)
from tests.contracts.tasks_world import HOUR, SKIP, new_task


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[DeploymentsWorld]:
    async with open_deployments_world(location) as opened:
        yield opened


# --- deploying


async def test_a_package_is_deployed_to_all_that_are_chosen(world: DeploymentsWorld) -> None:
    batch = await world.deploy()
    assert (batch.new_task.kind, batch.task_count) == ("install", 2)
    assert install_of(batch.new_task.spec) == Install(PACKAGE, "stable/tool/1.0/tool.tar.gz", "tool", "1.0")
    found = sorted(await world.listed(), key=lambda one: one.agent_id)
    assert [(one.agent_id, one.batch_id, one.package, one.package_name, one.version) for one in found] == [
        (agent_id, batch.batch_id, PACKAGE, "tool", "1.0") for agent_id in ("a1", "a2")
    ]
    assert {(one.standing.status, one.standing.time, one.create_time) for one in found} == {
        (S.PENDING, world.work.now, world.work.now)
    }


async def test_a_large_batch_has_its_deployments_slice_by_slice(world: DeploymentsWorld) -> None:
    for number in range(7):
        await world.work.world.enrol(f"b{number}")
    world.work.tasks.batches._slice_size = 2
    batch = await world.deploy()
    await world.work.tasks.batches.expand()
    await world.work.tasks.batches.stop()
    assert len(await world.listed(f"batch_id = {batch.batch_id}")) == 9


async def test_what_does_not_exist_is_not_deployed(world: DeploymentsWorld) -> None:
    with pytest.raises(NotFound) as refused:
        await world.deploy(package=OTHER)
    assert refused.value.reason == "PACKAGE_UNKNOWN"


@pytest.mark.parametrize("decision", [Decision.FAIL, Decision.UNJUDGED])
async def test_what_policy_refused_is_not_deployed(world: DeploymentsWorld, decision: Decision) -> None:
    await world.package(OTHER, decision=decision)
    with pytest.raises(FailedPrecondition) as refused:
        await world.deploy(package=OTHER)
    assert refused.value.reason == "PACKAGE_NOT_RELEASED"
    assert decision.name in refused.value.message
    assert await world.listed() == []
    assert await world.work.counts() == {}


async def test_an_exception_lets_a_package_be_deployed(world: DeploymentsWorld) -> None:
    await world.package(OTHER, decision=Decision.EXCEPTION)
    assert (await world.deploy(package=OTHER)).task_count == 2


async def test_what_was_withdrawn_is_not_deployed_but_the_same_call_has_its_answer(
    world: DeploymentsWorld,
) -> None:
    first = await world.deploy(request_id="r1")
    await world.withdraw()
    assert (await world.deploy(request_id="r1")).batch_id == first.batch_id
    assert len(await world.listed()) == 2
    with pytest.raises(FailedPrecondition, match="channel"):
        await world.deploy(request_id="r2")


async def test_a_request_id_stands_for_one_deployment(world: DeploymentsWorld) -> None:
    await world.deploy(request_id="r1")
    with pytest.raises(InvalidArgument) as refused:
        await world.deploy("agent_id = a1", request_id="r1")
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_a_selector_that_matches_nobody_is_refused_unless_that_is_allowed(
    world: DeploymentsWorld,
) -> None:
    with pytest.raises(InvalidArgument, match="matches no agent"):
        await world.deploy("agent_id = nobody")
    batch = await world.deployments.deploy(
        OPERATOR, PACKAGE, Chosen("agent_id = nobody"), new_task().options, "", allow_empty=True
    )
    assert batch.task_count == 0


# --- what agents say


async def test_a_deployment_follows_its_agent_to_the_end(world: DeploymentsWorld) -> None:
    attempt = await world.begin()
    assert await world.stands() == (S.PENDING, "")
    for status in (S.DOWNLOADING, S.VERIFYING, S.INSTALLING):
        world.work.advance(1)
        await world.say(attempt, status)
        assert (await world.only()).standing == Standing(status, world.work.now)
    world.work.advance(1)
    await world.end(attempt)
    standing = (await world.only()).standing
    assert (standing.status, standing.time) == (S.INSTALLED, world.work.now)


@pytest.mark.parametrize(
    ("outcome", "status", "code", "expected"),
    [
        (Outcome.FAILED, S.FAILED, "METADATA_EXPIRED", (S.FAILED, "METADATA_EXPIRED")),
        (Outcome.FAILED, S.ROLLED_BACK, "NOT_DETECTED", (S.ROLLED_BACK, "NOT_DETECTED")),
        (Outcome.REFUSED, 0, "", (S.FAILED, "REFUSED")),
        (Outcome.TIMED_OUT, 0, "", (S.FAILED, "TIMED_OUT")),
        (Outcome.INTERRUPTED, 0, "", (S.FAILED, "INTERRUPTED")),
    ],
)
async def test_a_failure_is_kept_with_its_reason(
    world: DeploymentsWorld, outcome: Outcome, status: int, code: str, expected: tuple[S, str]
) -> None:
    await world.end(await world.begin(), outcome, status, code, "because\0of it")
    assert await world.stands() == expected
    assert (await world.only()).standing.reason == "because\N{REPLACEMENT CHARACTER}of it"


async def test_a_status_of_another_kind_of_task_changes_nothing(world: DeploymentsWorld) -> None:
    _, attempt = await world.work.begin()
    await world.say(attempt, S.DOWNLOADING)
    await world.end(attempt)
    assert await world.listed() == []


async def test_an_attempt_that_is_tried_again_is_pending_with_its_reason(world: DeploymentsWorld) -> None:
    attempt = await world.begin(attempts=3)
    await world.say(attempt, S.DOWNLOADING)
    await world.end(attempt, Outcome.FAILED, S.FAILED, "DOWNLOAD_CUT", "no road")
    assert await world.stands() == (S.PENDING, "DOWNLOAD_CUT")
    world.work.advance(600)
    again = await world.run()
    await world.say(again, S.INSTALLING)
    assert await world.stands() == (S.INSTALLING, "")
    await world.end(again)
    assert await world.stands() == (S.INSTALLED, "")


async def test_a_result_that_comes_after_the_server_gave_up_is_believed(world: DeploymentsWorld) -> None:
    attempt = await world.begin()
    await world.say(attempt, S.INSTALLING)
    world.work.advance(HOUR)
    await world.work.sweep.run()
    assert await world.stands() == (S.FAILED, "NO_RESULT")
    await world.end(attempt)
    assert await world.stands() == (S.INSTALLED, "")
    assert await world.having() == ["a1"]


# --- what befalls tasks


async def test_a_task_that_is_cancelled_takes_its_deployment_along(world: DeploymentsWorld) -> None:
    await world.deploy("agent_id = a1")
    await world.work.tasks.cancel(OPERATOR, (await world.only()).task_id)
    assert await world.stands() == (S.FAILED, "CANCELLED")
    assert "cancelled by" in (await world.only()).standing.reason


async def test_a_batch_that_is_cancelled_takes_its_deployments_along(world: DeploymentsWorld) -> None:
    batch = await world.deploy()
    await world.work.tasks.batches.cancel(OPERATOR, batch.batch_id)
    assert {one.standing.reason_code for one in await world.listed()} == {"CANCELLED"}


async def test_one_that_is_not_taken_in_time_expires(world: DeploymentsWorld) -> None:
    await world.deploy("agent_id = a1", queue=60)
    world.work.advance(61)
    await world.work.sweep.run()
    assert await world.stands() == (S.FAILED, "EXPIRED")


async def test_one_that_does_not_wait_is_skipped_as_it_is_made_or_later(world: DeploymentsWorld) -> None:
    await world.work.leave("a1")
    await world.deploy(**SKIP)
    assert await world.stands("agent_id = a1") == (S.FAILED, "SKIPPED")
    assert await world.stands("agent_id = a2") == (S.PENDING, "")
    await world.work.leave("a2")
    await world.work.sweep.run()
    assert await world.stands("agent_id = a2") == (S.FAILED, "SKIPPED")


async def test_a_later_deployment_of_its_key_supersedes_one(world: DeploymentsWorld) -> None:
    latest: dict[str, Any] = {"offline": OfflinePolicy.LATEST, "key": "tool"}
    await world.deploy("agent_id = a1", **latest)
    world.work.advance(1)
    await world.deploy("agent_id = a1", **latest)
    assert await world.stands("latest = false") == (S.FAILED, "SUPERSEDED")
    assert await world.stands("latest = true") == (S.PENDING, "")


async def test_a_lost_journal_interrupts(world: DeploymentsWorld) -> None:
    await world.begin()
    await world.work.lose_journal()
    assert await world.stands() == (S.FAILED, "INTERRUPTED")


async def test_a_replay_is_a_deployment_of_the_same_package(world: DeploymentsWorld) -> None:
    await world.end(await world.begin(), Outcome.FAILED, S.FAILED, "NO_SPACE")
    former = await world.only()
    world.work.advance(1)
    made = await world.work.tasks.replays.replay(OPERATOR, former.task_id, "")
    again = await world.only("latest = true")
    assert (again.task_id, again.package, again.batch_id) == (made, PACKAGE, former.batch_id)
    assert await world.stands(f'task_id = "{former.task_id}"') == (S.FAILED, "NO_SPACE")
    await world.end(await world.run())
    assert await world.stands("latest = true") == (S.INSTALLED, "")


async def test_an_agent_that_is_deleted_has_nothing_any_more(world: DeploymentsWorld) -> None:
    await world.install("a1")
    await world.deploy()
    await world.work.world.agents.delete("a1", etag="", caller=OPERATOR)
    assert [one.agent_id for one in await world.listed()] == ["a2"]
    assert await world.having() == []


async def test_what_another_kind_superseded_is_mended_by_schedule(world: DeploymentsWorld) -> None:
    latest: dict[str, Any] = {"offline": OfflinePolicy.LATEST, "key": "tool"}
    await world.deploy("agent_id = a1", **latest)
    world.work.advance(1)
    await world.work.create(**latest)
    assert await world.stands() == (S.PENDING, "")
    assert await world.deployments.reconcile() == 1
    assert await world.stands() == (S.FAILED, "SUPERSEDED")
    assert await world.deployments.reconcile() == 0


async def test_a_deployment_outlives_its_task(world: DeploymentsWorld) -> None:
    await world.install("a1")
    await world.deploy("agent_id = a2")
    async with world.work.world.database.unit_of_work() as work:
        await work.connection.execute(text("DELETE FROM task_attempts"))
        await work.connection.execute(text("DELETE FROM tasks"))
        await work.connection.execute(delete(packages))
    assert await world.deployments.reconcile() == 1
    assert await world.stands("agent_id = a2") == (S.FAILED, "TASK_GONE")
    assert await world.having() == ["a1"]


# --- who has what


async def test_an_agent_has_what_was_installed_last(world: DeploymentsWorld) -> None:
    await world.package(OTHER, "2.0")
    await world.install("a1")
    await world.install("a2")
    assert await world.having() == ["a1", "a2"]
    await world.install("a1", OTHER)
    assert (await world.having(), await world.having(OTHER)) == (["a2"], ["a1"])
    assert await world.deployments.installed_counts([PACKAGE, OTHER, "c" * 64]) == {PACKAGE: 1, OTHER: 1}
    await world.install("a1")
    assert await world.having() == ["a1", "a2"]
    assert await world.deployments.installed_counts([PACKAGE, OTHER]) == {PACKAGE: 2}


@pytest.mark.parametrize("status", [S.ROLLED_BACK, S.FAILED])
async def test_what_failed_since_took_it_from_nobody(world: DeploymentsWorld, status: S) -> None:
    await world.package(OTHER, "2.0")
    await world.install("a1")
    await world.end(await world.begin("a1", OTHER), Outcome.FAILED, status, "NOT_DETECTED")
    assert (await world.having(), await world.having(OTHER)) == (["a1"], [])


# --- listing


async def test_deployments_are_listed_page_by_page_the_last_change_first(world: DeploymentsWorld) -> None:
    for number in range(5):
        await world.work.world.enrol(f"b{number}")
    await world.deploy()
    world.work.advance(1)
    await world.end(await world.run("a2"), agent_id="a2")
    everything = read("", FILTER)
    seen: list[DeploymentRecord] = []
    before: tuple[int, str] | None = None
    while some := await world.deployments.page(everything, before, 3):
        seen += some
        before = some[-1].standing.time, some[-1].task_id
    assert [one.agent_id for one in seen] == ["a2", "b4", "b3", "b2", "b1", "b0", "a1"]
    assert await world.deployments.count(everything) == 7
    assert await world.deployments.status_counts(everything) == {S.PENDING: 6, S.INSTALLED: 1}


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("agent_id = a1", {"a1"}),
        ("status = INSTALLED", {"a1"}),
        ("status = DEPLOYMENT_STATUS_PENDING", {"a2"}),
        (f"package = {PACKAGE} AND latest = true", {"a1", "a2"}),
        ("latest = false", set()),
        ("latest:*", {"a1", "a2"}),
        ('package_name = tool AND version = "1.0"', {"a1", "a2"}),
        ("reason_code:*", set()),
        ("create_time < 2030-01-01T00:00:00Z", {"a1", "a2"}),
    ],
)
async def test_deployments_are_filtered(
    world: DeploymentsWorld, filter_text: str, expected: set[str]
) -> None:
    await world.deploy()
    await world.end(await world.run())
    found = await world.listed(filter_text)
    assert {one.agent_id for one in found} == expected
    assert await world.deployments.count(read(filter_text, FILTER)) == len(expected)


async def test_what_was_overtaken_is_forgotten_after_its_time(world: DeploymentsWorld) -> None:
    await world.package(OTHER, "2.0")
    await world.install("a1")
    await world.install("a1", OTHER)
    await world.end(await world.begin("a1"), Outcome.FAILED, S.FAILED, "NO_SPACE")
    world.work.advance(10)
    clock = world.work.world.clock
    assert await world.deployments.prune(clock.now() - timedelta(days=1)) == 0
    assert await world.deployments.prune(clock.now()) == 1
    left = await world.listed()
    assert {(one.package, one.standing.status) for one in left} == {(OTHER, S.INSTALLED), (PACKAGE, S.FAILED)}


async def test_the_tasks_of_deployments_are_tasks_like_others(world: DeploymentsWorld) -> None:
    await world.install("a1")
    page = await world.work.tasks.list_tasks("kind = install", 10, "")
    assert [(task.kind, task.state) for task in page.tasks] == [("install", TaskState.SUCCEEDED)]
