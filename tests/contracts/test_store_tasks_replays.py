"""Replaying what ended without success: something new, and the old one stays what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound
from controlplane.storage.location import Location
from controlplane.tasks import replays
from controlplane.tasks.records import TaskRecord, Window
from controlplane.tasks.rules import OfflinePolicy, Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.tasks_world import SECOND, TasksWorld, open_tasks_world

LATEST: dict[str, Any] = {"offline": OfflinePolicy.LATEST, "key": "sshd"}


@pytest_asyncio.fixture
async def work(location: Location) -> AsyncIterator[TasksWorld]:
    async with open_tasks_world(location) as opened:
        yield opened


async def dead(work: TasksWorld, **options: Any) -> TaskRecord:
    """Return a task that failed as often as it may."""
    task_id, attempt_id = await work.begin(attempts=2, **options)
    await work.finish(attempt_id, Outcome.FAILED)
    await work.finish(await work.again(), Outcome.FAILED)
    task = await work.get(task_id)
    assert task.state is TaskState.DEAD
    return task


async def replay(work: TasksWorld, task_id: str, request_id: str = "") -> TaskRecord:
    return await work.get(await work.tasks.replays.replay(OPERATOR, task_id, request_id))


async def replay_all(work: TasksWorld, filter_text: str, request_id: str = "") -> tuple[int, bool]:
    done = await work.tasks.replays.replay_matching(OPERATOR, filter_text, request_id)
    return done.count, done.more


async def cancelled(work: TasksWorld, **options: Any) -> str:
    task_id = await work.create(**options)
    await work.tasks.cancel(OPERATOR, task_id)
    return task_id


async def test_a_dead_task_is_replayed_as_a_new_one_that_names_it(work: TasksWorld) -> None:
    old = await dead(work, spec=b"spec", priority=7, idempotent=True)
    new = await replay(work, old.task_id)
    assert await work.get(old.task_id) == old
    assert (new.replay_of, new.agent_id, new.spec, new.options) == (old.task_id, "a1", b"spec", old.options)
    assert (new.state, new.attempt_count, new.result) == (TaskState.QUEUED, 0, None)
    assert (new.create_time, new.expire_time) == (work.now, work.now + old.options.queue_time)
    assert work.woken == ["a1", "a1"]
    (assigned,) = await work.lease()
    assert (assigned.task_id, assigned.number, assigned.spec) == (new.task_id, 1, b"spec")
    await work.accept(assigned.attempt_id)
    await work.finish(assigned.attempt_id)
    assert await work.state(new.task_id) is TaskState.SUCCEEDED
    assert await work.get(old.task_id) == old


async def test_the_same_request_replays_once(work: TasksWorld) -> None:
    old = await dead(work)
    new = await replay(work, old.task_id, "r")
    assert await replay(work, old.task_id, "r") == new
    assert (await replay(work, old.task_id)).task_id != new.task_id
    with pytest.raises(InvalidArgument) as refused:
        await replay(work, await cancelled(work), "r")
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_a_task_of_a_batch_is_replayed_in_it(work: TasksWorld) -> None:
    batch = await work.batch("agent_id = a1", spec=b"of the batch")
    await work.tasks.batches.cancel(OPERATOR, batch.batch_id)
    new = await replay(work, f"{batch.batch_id}.a1")
    assert (new.batch_id, new.spec) == (batch.batch_id, b"of the batch")
    assert [one.spec for one in await work.lease()] == [b"of the batch"]
    assert (await work.rows(f"SELECT spec FROM tasks WHERE task_id = '{new.task_id}'"))[0].spec is None


async def test_what_is_open_or_has_succeeded_is_not_replayed(work: TasksWorld) -> None:
    queued = await work.create("a2")
    running, attempt_id = await work.begin()
    done, finished = await work.begin()
    await work.finish(finished)
    for task_id, said in ((queued, "QUEUED"), (running, "RUNNING"), (done, "SUCCEEDED")):
        with pytest.raises(FailedPrecondition, match=said) as refused:
            await replay(work, task_id)
        assert refused.value.reason == "TASK_NOT_REPLAYABLE"
    assert await replay_all(work, "*") == (0, False)
    await work.finish(attempt_id, Outcome.FAILED)
    assert (await replay(work, running)).replay_of == running


async def test_what_a_later_task_of_its_key_has_followed_is_not_replayed(work: TasksWorld) -> None:
    first = await work.create(**LATEST)
    work.advance(1)
    second = await cancelled(work, **LATEST)
    with pytest.raises(FailedPrecondition, match="not the latest of its supersede_key"):
        await replay(work, first)
    assert (await replay(work, second)).options.supersede_key == "sshd"
    work.advance(1)
    with pytest.raises(FailedPrecondition, match="not the latest"):
        await replay(work, first)


async def test_what_does_not_exist_or_whose_agent_is_gone_is_not_found(work: TasksWorld) -> None:
    with pytest.raises(NotFound) as refused:
        await replay(work, "x")
    assert refused.value.reason == "TASK_UNKNOWN"
    old = await dead(work)
    await work.world.agents.delete("a1", etag="", caller=OPERATOR)
    with pytest.raises(NotFound) as refused:
        await replay(work, old.task_id)
    assert refused.value.reason == "AGENT_UNKNOWN"
    assert await replay_all(work, "state = DEAD") == (0, False)


async def test_all_that_match_are_replayed_once(work: TasksWorld) -> None:
    made = [await cancelled(work) for _ in range(3)]
    other = await cancelled(work, priority=9)
    dead_one = await dead(work)
    assert await replay_all(work, "state = CANCELLED AND priority = 0") == (3, False)
    assert await replay_all(work, "state = CANCELLED AND priority = 0") == (0, False)
    rows = await work.rows("SELECT replay_of FROM tasks WHERE replay_of IS NOT NULL")
    assert {row.replay_of for row in rows} == set(made)
    assert await replay_all(work, "*") == (2, False)
    page = await work.tasks.list_tasks("replay_of:*", 0, "")
    assert {task.replay_of for task in page.tasks} == {*made, other, dead_one.task_id}
    page = await work.tasks.list_tasks(f'replay_of = "{other}"', 0, "")
    assert [task.options.priority for task in page.tasks] == [9]


async def test_more_than_one_call_replays_is_said(work: TasksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "AT_ONCE", 2)
    for _ in range(3):
        await cancelled(work)
        work.advance(1)
    assert await replay_all(work, "*", "r1") == (2, True)
    assert await replay_all(work, "*", "r1") == (2, True)
    assert await replay_all(work, "*", "r2") == (1, False)
    with pytest.raises(InvalidArgument) as refused:
        await replay_all(work, "state = DEAD", "r1")
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_a_replay_follows_its_policy_as_it_is_now(work: TasksWorld) -> None:
    window = Window("0 22 * * *", "UTC", 3_600 * SECOND)
    skipping = await cancelled(work, offline=OfflinePolicy.SKIP)
    windowed = await cancelled(work, offline=OfflinePolicy.WINDOW, window=window, queue=200_000)
    await work.leave()
    assert (await replay(work, skipping)).state is TaskState.SKIPPED
    new = await replay(work, windowed)
    assert new.state is TaskState.QUEUED
    assert await work.lease() == ()
    await work.sweep.run()
    moved = (await work.get(new.task_id)).due
    assert moved.not_before == work.now + 10 * 3_600 * SECOND


async def test_a_filter_out_of_form_is_refused(work: TasksWorld) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await replay_all(work, "nonsense = 1")
    assert refused.value.reason == "FILTER_INVALID"
