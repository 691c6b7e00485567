"""What becomes of tasks while their agent cannot take them, by their policy, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from controlplane.errors import InvalidArgument
from controlplane.storage.location import Location
from controlplane.tasks.records import Window
from controlplane.tasks.rules import AttemptState, OfflinePolicy, Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.tasks_world import (
    DAY,
    HOUR,
    LATEST,
    NIGHTS,
    SKIP,
    WINDOW,
    TasksWorld,
    new_task,
    open_tasks_world,
    stale,
)


@pytest_asyncio.fixture
async def work(location: Location) -> AsyncIterator[TasksWorld]:
    async with open_tasks_world(location) as opened:
        yield opened


# --- skip if offline


async def test_a_task_that_does_not_wait_is_queued_for_an_agent_that_is_online(work: TasksWorld) -> None:
    task_id = await work.create(**SKIP)
    assert await work.state(task_id) is TaskState.QUEUED
    assert [one.task_id for one in await work.lease()] == [task_id]


@pytest.mark.parametrize("absence", [stale, TasksWorld.leave])
async def test_it_is_skipped_at_once_for_an_agent_that_is_not(work: TasksWorld, absence: Any) -> None:
    await absence(work)
    task = await work.get(await work.create(**SKIP))
    assert (task.state, task.attempt_count) == (TaskState.SKIPPED, 0)
    assert task.state_reason == "skipped: its agent was not online when it was created"
    assert work.woken == []
    assert await work.lease() == ()


async def test_it_is_skipped_when_its_agent_goes_offline_before_it_takes_it(work: TasksWorld) -> None:
    skipping, waiting = await work.create(**SKIP), await work.create()
    await work.sweep.run()
    assert await work.state(skipping) is TaskState.QUEUED
    await stale(work)
    await work.sweep.run()
    assert await work.state(skipping) is TaskState.QUEUED
    await work.leave()
    assert (await work.sweep.run()).skipped == 1
    assert await work.state(skipping) is TaskState.SKIPPED
    assert await work.state(waiting) is TaskState.QUEUED


async def test_an_agent_that_is_back_before_the_sweep_looks_takes_it(work: TasksWorld) -> None:
    task_id = await work.create(**SKIP)
    await work.leave()
    await work.world.open("a1", handed=b"n2")
    await work.sweep.run()
    assert [one.task_id for one in await work.lease(epoch=2)] == [task_id]


async def test_what_its_agent_holds_is_not_skipped_and_its_result_counts(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin(**SKIP)
    await work.leave()
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.RUNNING
    await work.finish(attempt_id)
    assert await work.state(task_id) is TaskState.SUCCEEDED


async def test_a_lease_that_lapses_is_skipped_in_the_same_sweep(work: TasksWorld) -> None:
    task_id = await work.create(**SKIP)
    await work.lease()
    await work.leave()
    work.advance(61)
    swept = await work.sweep.run()
    assert (swept.lapsed, swept.skipped) == (1, 1)
    assert await work.state(task_id) is TaskState.SKIPPED


async def test_a_retry_does_not_wait_for_an_agent_that_is_offline(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin(attempts=3, **SKIP)
    await work.finish(attempt_id, Outcome.FAILED)
    await work.leave()
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.SKIPPED


async def test_a_batch_skips_those_that_are_not_online(work: TasksWorld) -> None:
    await work.leave()
    batch = await work.batch(**SKIP)
    _, counts = await work.tasks.batches.get(batch.batch_id)
    assert counts == [(TaskState.QUEUED, 1), (TaskState.SKIPPED, 1)]
    assert (batch.task_count, work.woken) == (2, ["a2"])


# --- only the latest of a key


async def test_a_later_task_of_its_key_ends_one_that_waits(work: TasksWorld) -> None:
    first = await work.create(**LATEST)
    others = [
        await work.create("a2", **LATEST),
        await work.create(offline=OfflinePolicy.LATEST, key="ntp"),
        await work.create(),
    ]
    second = await work.create(**LATEST)
    ended = await work.get(first)
    assert (ended.state, ended.state_reason) == (
        TaskState.SUPERSEDED,
        "superseded: a later task of its key was created",
    )
    for task_id in [*others, second]:
        assert await work.state(task_id) is TaskState.QUEUED
    assert first not in [one.task_id for one in await work.lease()]


async def test_of_many_that_are_created_at_once_one_is_left(work: TasksWorld) -> None:
    made = await asyncio.gather(*(work.create(**LATEST) for _ in range(8)))
    states = [await work.state(task_id) for task_id in made]
    assert sorted(states) == [TaskState.QUEUED] + [TaskState.SUPERSEDED] * 7


async def test_the_same_request_again_supersedes_nothing(work: TasksWorld) -> None:
    first = await work.create(request_id="r", **LATEST)
    second = await work.create(**LATEST)
    assert await work.create(request_id="r", **LATEST) == first
    assert await work.state(second) is TaskState.QUEUED


@pytest.mark.parametrize("accepted", [False, True])
async def test_one_that_its_agent_has_goes_on(work: TasksWorld, accepted: bool) -> None:
    first = await work.create(**LATEST)
    (leased,) = await work.lease()
    if accepted:
        await work.accept(leased.attempt_id)
    second = await work.create(**LATEST)
    assert await work.state(first) is (TaskState.RUNNING if accepted else TaskState.LEASED)
    await work.finish(leased.attempt_id)
    assert await work.state(first) is TaskState.SUCCEEDED
    assert await work.state(second) is TaskState.QUEUED


async def test_one_that_would_wait_for_another_attempt_is_superseded_instead(work: TasksWorld) -> None:
    first, attempt_id = await work.begin(attempts=3, **LATEST)
    second = await work.create(**LATEST)
    await work.finish(attempt_id, Outcome.FAILED)
    assert await work.state(first) is TaskState.SUPERSEDED
    assert [one.task_id for one in await work.lease()] == [second]


async def test_one_whose_lease_lapses_is_superseded_instead(work: TasksWorld) -> None:
    first = await work.create(**LATEST)
    (leased,) = await work.lease()
    await work.create(**LATEST)
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    assert await work.state(first) is TaskState.SUPERSEDED
    assert (await work.attempts(first))[0].state is AttemptState.LAPSED
    await work.world.open("a1", handed=b"n2")
    stop, _ = await work.adopt({leased.attempt_id: False}, epoch=2)
    assert stop == {leased.attempt_id}


async def test_a_batch_takes_the_place_of_what_is_older_and_not_of_what_is_later(work: TasksWorld) -> None:
    older = await work.create("a1", **LATEST)
    work.advance(1)
    batch = await work.batch(**LATEST)
    assert await work.state(older) is TaskState.SUPERSEDED
    work.advance(1)
    later = await work.create("a2", **LATEST)
    states = {one: await work.state(f"{batch.batch_id}.{one}") for one in ("a1", "a2")}
    assert states == {"a1": TaskState.QUEUED, "a2": TaskState.SUPERSEDED}
    work.advance(1)
    await work.batch(**LATEST)
    assert await work.state(later) is TaskState.SUPERSEDED


# --- the next maintenance window


def clock(work: TasksWorld, text: str) -> None:
    work.world.clock.time = datetime.fromisoformat(text).replace(tzinfo=UTC)


async def due(work: TasksWorld, task_id: str) -> tuple[str, str]:
    found = (await work.get(task_id)).due
    assert found.window_end is not None
    begin, end = (
        datetime.fromtimestamp(micros / 1e6, UTC).strftime("%d %H:%M")
        for micros in (found.not_before, found.window_end)
    )
    return begin, end


async def test_a_task_is_handed_out_from_the_begin_of_its_window_to_its_end(work: TasksWorld) -> None:
    task_id = await work.create(**WINDOW)
    assert await due(work, task_id) == ("01 22:00", "02 00:00")
    assert await work.lease() == ()
    assert not await work.tasks.has_work("a1")
    clock(work, "2024-05-01T21:59:59")
    assert await work.lease() == ()
    clock(work, "2024-05-01T22:00:00")
    assert await work.tasks.has_work("a1")
    await work.tasks.wake_waiting()
    assert work.stopping == ["a1"]
    assert [one.task_id for one in await work.lease()] == [task_id]


async def test_a_window_that_is_open_is_the_next_one(work: TasksWorld) -> None:
    clock(work, "2024-05-01T23:30:00")
    await work.create(**WINDOW)
    assert len(await work.lease()) == 1


async def test_a_window_that_closed_unused_is_followed_by_the_next(work: TasksWorld) -> None:
    task_id = await work.create(**WINDOW)
    clock(work, "2024-05-02T00:00:00")
    assert await work.lease() == ()
    assert not await work.tasks.has_work("a1")
    await work.tasks.wake_waiting()
    assert work.stopping == []
    assert (await work.sweep.run()).moved == 1
    assert await due(work, task_id) == ("02 22:00", "03 00:00")
    assert (await work.sweep.run()).moved == 0
    clock(work, "2024-05-02T23:00:00")
    assert len(await work.lease()) == 1


async def test_a_retry_waits_for_the_next_window_where_this_one_closes_before(work: TasksWorld) -> None:
    clock(work, "2024-05-01T23:59:58")
    task_id, attempt_id = await work.begin(attempts=3, **WINDOW)
    await work.finish(attempt_id, Outcome.FAILED)
    clock(work, "2024-05-02T00:00:04")
    assert await work.lease() == ()
    await work.sweep.run()
    assert await due(work, task_id) == ("02 22:00", "03 00:00")


async def test_what_was_not_taken_is_not_sent_again_outside_of_the_window(work: TasksWorld) -> None:
    clock(work, "2024-05-01T23:59:00")
    task_id = await work.create(**WINDOW)
    await work.lease()
    await work.world.open("a1", handed=b"n2")
    assert len((await work.adopt({}, epoch=2))[1]) == 1
    clock(work, "2024-05-02T00:00:00")
    await work.world.open("a1", handed=b"n3")
    assert (await work.adopt({}, epoch=3))[1] == []
    work.advance(61)
    swept = await work.sweep.run()
    assert (swept.lapsed, swept.moved) == (1, 1)
    assert await due(work, task_id) == ("02 22:00", "03 00:00")


async def test_an_attempt_may_end_after_its_window(work: TasksWorld) -> None:
    clock(work, "2024-05-01T23:59:59")
    task_id, attempt_id = await work.begin(**WINDOW)
    clock(work, "2024-05-02T00:01:00")
    await work.sweep.run()
    await work.finish(attempt_id)
    assert await work.state(task_id) is TaskState.SUCCEEDED


async def test_a_window_that_opens_after_the_task_is_given_up_is_refused(work: TasksWorld) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await work.create(**{**WINDOW, "queue": 10 * HOUR})
    assert [violation.field for violation in refused.value.violations] == ["options.queue_time"]
    assert "opens at 2024-05-01T22:00:00Z" in refused.value.message
    assert await work.rows("SELECT * FROM tasks") == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"offline": OfflinePolicy.LATEST}, "options.supersede_key"),
        ({"key": "sshd"}, "options.supersede_key"),
        ({"offline": OfflinePolicy.LATEST, "key": "a\0b"}, "options.supersede_key"),
        ({"offline": OfflinePolicy.WINDOW}, "options.window"),
        ({"window": NIGHTS}, "options.window"),
        ({**WINDOW, "window": Window("x", "UTC", HOUR)}, "options.window.cron"),
        ({**WINDOW, "window": Window("0 0 30 2 *", "UTC", HOUR)}, "options.window.cron"),
        ({**WINDOW, "window": Window("0 0 * * *", "Nowhere", HOUR)}, "options.window.time_zone"),
    ],
)
@pytest.mark.parametrize("batch", [False, True])
async def test_options_that_do_not_fit_together_are_refused_with_their_field(
    work: TasksWorld, options: dict[str, Any], field: str, batch: bool
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await (work.batch(**options) if batch else work.create(**options))
    assert [violation.field for violation in refused.value.violations] == [field]
    assert await work.rows("SELECT * FROM tasks") == []
    assert await work.rows("SELECT * FROM task_batches") == []


# --- all of them


@pytest.mark.parametrize("policy", [SKIP, LATEST, WINDOW], ids=["skip", "latest", "window"])
async def test_a_created_task_reads_as_it_was_answered(work: TasksWorld, policy: dict[str, Any]) -> None:
    task = await work.tasks.create(OPERATOR, "a1", new_task(**policy), "r")
    assert await work.get(task.task_id) == task
    await work.leave("a2")
    task = await work.tasks.create(OPERATOR, "a2", new_task(**policy), "r2")
    assert await work.get(task.task_id) == task


@pytest.mark.parametrize("policy", [LATEST, WINDOW], ids=["latest", "window"])
async def test_what_waits_too_long_expires(work: TasksWorld, policy: dict[str, Any]) -> None:
    task_id = await work.create(**policy)
    work.advance(31 * DAY)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.EXPIRED


async def test_a_leased_task_that_is_to_be_cancelled_does_not_expire_but_is_cancelled(
    work: TasksWorld,
) -> None:
    task_id = await work.create(queue=60)
    await work.lease()
    await work.tasks.cancel(OPERATOR, task_id)
    work.advance(60)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.CANCELLED
