"""Batches that make their tasks in slices, a percentage of a selector, and cancellation as one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import update

from controlplane.agents import rules as agent_rules
from controlplane.errors import InvalidArgument, NotFound
from controlplane.storage.location import Location
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks import batches
from controlplane.tasks.records import Window
from controlplane.tasks.rules import BatchState, OfflinePolicy, TaskState
from controlplane.tasks.service import TasksService
from controlplane.tasks.store.tables import task_batches
from tests.contracts.agents_world import OPERATOR, SECRET
from tests.contracts.tasks_world import SECOND, TasksWorld, open_tasks_world


@pytest_asyncio.fixture
async def work(location: Location) -> AsyncIterator[TasksWorld]:
    async with open_tasks_world(location) as opened:
        yield opened
        await opened.tasks.batches.stop()


@pytest.fixture
def slices_of_two(work: TasksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work.tasks.batches, "_slice_size", 2)
    # Those of a cancellation.
    monkeypatch.setattr(batches, "SLICE", 2)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, slices_of_two: None) -> None:
    """Let no call begin to expand by itself, so that a test sees what was answered."""
    del slices_of_two
    monkeypatch.setattr(batches.Batches, "_begin", lambda self: None)


async def enrol(work: TasksWorld, count: int) -> list[str]:
    ids = [f"b{number:02}" for number in range(count)]
    for agent_id in ids:
        await work.world.enrol(agent_id, {"site": "oslo"})
    return ids


OSLO = "labels.site = oslo"


async def of_batch(work: TasksWorld, batch_id: str) -> list[str]:
    rows = await work.rows(f"SELECT agent_id FROM tasks WHERE batch_id = '{batch_id}' ORDER BY agent_id")
    return [row.agent_id for row in rows]


async def one_slice(work: TasksWorld) -> bool:
    return await work.world.database.transact(work.tasks.batches._next_slice)


async def killed(work: TasksWorld) -> TasksService:
    """Return the service of the next server, which knows nothing but the database."""
    world = work.world
    ignore = lambda agent_ids: None  # noqa: E731
    writer = type(world.writer)(world.database)
    return TasksService(
        world.database, writer, world.agents, world.wakeups, world.clock, SECRET, ignore, ignore, 2
    )


# --- expansion


async def test_a_small_batch_is_whole_when_its_call_answers(work: TasksWorld) -> None:
    ids = await enrol(work, 5)
    batch = await work.batch(OSLO)
    assert (batch.state, batch.target_count, batch.expanded_count, batch.task_count) == (
        BatchState.EXPANDED,
        5,
        5,
        5,
    )
    assert await of_batch(work, batch.batch_id) == ids
    assert await work.rows("SELECT * FROM task_batch_targets") == []


@pytest.mark.usefixtures("by_hand")
async def test_a_large_batch_answers_before_its_tasks_are_made(work: TasksWorld) -> None:
    ids = await enrol(work, 5)
    batch = await work.batch(OSLO, spec=b"s", priority=3)
    assert (batch.state, batch.target_count, batch.expanded_count, batch.task_count) == (
        BatchState.EXPANDING,
        5,
        0,
        0,
    )
    assert work.woken == []
    seen = []
    while await one_slice(work):
        found, _ = await work.tasks.batches.get(batch.batch_id)
        seen.append((found.state.name, found.expanded_count, found.task_count, len(work.woken)))
    assert seen == [("EXPANDING", 2, 2, 2), ("EXPANDING", 4, 4, 4), ("EXPANDED", 5, 5, 5)]
    assert await of_batch(work, batch.batch_id) == work.woken == ids
    (assigned,) = await work.lease("b03")
    assert assigned.spec == b"s"


@pytest.mark.usefixtures("slices_of_two")
async def test_a_call_sets_the_expansion_going(work: TasksWorld) -> None:
    ids = await enrol(work, 7)
    batch = await work.batch(OSLO)
    expanding = work.tasks.batches._expanding
    assert expanding is not None
    await expanding
    found, _ = await work.tasks.batches.get(batch.batch_id)
    assert found.state is BatchState.EXPANDED
    assert await of_batch(work, batch.batch_id) == ids


@pytest.mark.usefixtures("by_hand")
async def test_which_agents_are_chosen_is_decided_by_the_call(work: TasksWorld) -> None:
    ids = await enrol(work, 5)
    batch = await work.batch(OSLO)
    await one_slice(work)
    await work.world.enrol("b99", {"site": "oslo"})
    await work.world.enrol("b04", {"site": "rome"}, replace=True)
    await work.world.agents.delete("b03", etag="", caller=OPERATOR)
    await work.tasks.batches.expand()
    found, _ = await work.tasks.batches.get(batch.batch_id)
    assert (found.state, found.target_count, found.expanded_count, found.task_count) == (
        BatchState.EXPANDED,
        5,
        5,
        4,
    )
    assert await of_batch(work, batch.batch_id) == [one for one in ids if one != "b03"]


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("slices", [0, 1, 2])
async def test_what_a_killed_server_left_the_next_one_makes(work: TasksWorld, slices: int) -> None:
    ids = await enrol(work, 7)
    batch = await work.batch(OSLO)
    for _ in range(slices):
        await one_slice(work)

    async def dies(unit: UnitOfWork) -> None:
        await work.tasks.batches._next_slice(unit)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        await work.world.database.transact(dies)
    following = await killed(work)
    assert await following.batches.expand() == 4 - slices
    assert await of_batch(work, batch.batch_id) == ids


@pytest.mark.usefixtures("by_hand")
async def test_two_that_expand_at_once_make_each_task_once(work: TasksWorld) -> None:
    ids = await enrol(work, 9)
    made = [await work.batch(OSLO) for _ in range(3)]
    other = await killed(work)
    slices = await asyncio.gather(work.tasks.batches.expand(), other.batches.expand())
    assert sum(slices) == 3 * 5
    for batch in made:
        assert await of_batch(work, batch.batch_id) == ids


@pytest.mark.usefixtures("by_hand")
async def test_the_same_request_gives_the_first_answer_while_it_expands(work: TasksWorld) -> None:
    await enrol(work, 5)
    batch = await work.batch(OSLO, "r")
    await one_slice(work)
    again = await work.batch(OSLO, "r")
    assert (again.batch_id, again.expanded_count) == (batch.batch_id, 2)
    with pytest.raises(InvalidArgument) as refused:
        await work.batch(OSLO, "r", percentage=50)
    assert refused.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.usefixtures("by_hand")
async def test_a_large_batch_of_a_key_is_as_old_as_its_creation(work: TasksWorld) -> None:
    await enrol(work, 5)
    options: dict[str, Any] = {"offline": OfflinePolicy.LATEST, "key": "k"}
    older = await work.create("b00", **options)
    work.advance(1)
    batch = await work.batch(OSLO, **options)
    work.advance(1)
    later = await work.create("b04", **options)
    await work.tasks.batches.expand()
    assert await work.state(older) is TaskState.SUPERSEDED
    assert await work.state(later) is TaskState.QUEUED
    assert await work.state(f"{batch.batch_id}.b04") is TaskState.SUPERSEDED
    assert await work.state(f"{batch.batch_id}.b00") is TaskState.QUEUED


@pytest.mark.usefixtures("by_hand")
async def test_a_window_that_can_no_longer_be_read_holds_up_no_other_batch(work: TasksWorld) -> None:
    await enrol(work, 5)
    window = Window("0 12 * * *", "UTC", 3_600 * SECOND)
    first = await work.batch(OSLO, offline=OfflinePolicy.WINDOW, window=window, queue=200_000)
    second = await work.batch(OSLO)
    async with work.world.database.unit_of_work() as transaction:
        await transaction.connection.execute(
            update(task_batches)
            .where(task_batches.c.batch_id == first.batch_id)
            .values(window_zone="Gone/Zone")
        )
    await work.tasks.batches.expand()
    for batch in (first, second):
        found, _ = await work.tasks.batches.get(batch.batch_id)
        assert (found.state, found.task_count) == (BatchState.EXPANDED, 5)
    due = await work.rows(f"SELECT not_before FROM tasks WHERE batch_id = '{first.batch_id}'")
    assert {row.not_before for row in due} == {work.world.clock.micros() + 3_600 * SECOND}


@pytest.mark.usefixtures("by_hand")
async def test_a_slice_that_comes_after_its_window_waits_for_the_next(work: TasksWorld) -> None:
    await enrol(work, 5)
    window = Window("0 12 * * *", "UTC", 3_600 * SECOND)
    batch = await work.batch(OSLO, offline=OfflinePolicy.WINDOW, window=window, queue=200_000)
    await one_slice(work)
    work.advance(3_601)
    await work.tasks.batches.expand()
    assert await work.lease("b04") == ()
    task = await work.get(f"{batch.batch_id}.b04")
    assert task.due.not_before == batch.create_time + 86_400 * SECOND


# --- percentage


async def test_a_percentage_of_a_selector_is_the_same_each_time_and_grows_by_adding(work: TasksWorld) -> None:
    ids = await enrol(work, 60)
    chosen = {}
    for percentage in (10, 25, 50, 99, 100):
        batch = await work.batch(OSLO, percentage=percentage, seed=7)
        chosen[percentage] = set(await of_batch(work, batch.batch_id))
        assert (batch.chosen.percentage, batch.chosen.seed) == (percentage, 7)
    assert chosen[10] <= chosen[25] <= chosen[50] <= chosen[99] <= chosen[100] == set(ids)
    assert 15 < len(chosen[50]) < 45
    again = await work.batch(OSLO, percentage=25, seed=7)
    assert set(await of_batch(work, again.batch_id)) == chosen[25]
    other = await work.batch(OSLO, percentage=25, seed=8)
    assert set(await of_batch(work, other.batch_id)) != chosen[25]


async def test_a_percentage_is_that_part_of_many_agents() -> None:
    begin = agent_rules.first_bucket(3)
    ids = [f"host-{number}" for number in range(20_000)]
    places = [(agent_rules.bucket(agent_id) - begin) % agent_rules.BUCKETS for agent_id in ids]
    for percentage in (1, 10, 50, 90):
        part = sum(place < percentage * 100 for place in places) / len(ids)
        assert abs(part - percentage / 100) < 0.01


async def test_a_percentage_that_leaves_no_agent_is_refused_at_once(work: TasksWorld) -> None:
    seed = next(
        seed
        for seed in range(100)
        if (agent_rules.bucket("a1") - agent_rules.first_bucket(seed)) % agent_rules.BUCKETS >= 100
    )
    with pytest.raises(InvalidArgument, match=f"percentage 1 and seed {seed} matches no agent") as refused:
        await work.batch("agent_id = a1", percentage=1, seed=seed)
    assert refused.value.reason == "SELECTOR_EMPTY"
    assert await work.rows("SELECT * FROM task_batches") == []


# --- cancellation


async def test_a_batch_is_cancelled_with_all_that_is_open(work: TasksWorld) -> None:
    ids = await enrol(work, 4)
    for agent_id in ids:
        await work.world.open(agent_id)
    batch = await work.batch(OSLO)
    (done,), (running,), (leased,) = [await work.lease(agent_id) for agent_id in ids[:3]]
    await work.finish(done.attempt_id, agent_id="b00")
    await work.accept(running.attempt_id, "b01")
    found, counts, cancelled = await work.tasks.batches.cancel(OPERATOR, batch.batch_id)
    assert (found.state, cancelled.cancelled, cancelled.asked) == (BatchState.CANCELLED, 1, 2)
    assert dict(counts) == {
        TaskState.SUCCEEDED: 1,
        TaskState.RUNNING: 1,
        TaskState.LEASED: 1,
        TaskState.CANCELLED: 1,
    }
    assert sorted(work.stopping) == ["b01", "b02"]
    ended = await work.get(f"{batch.batch_id}.b03")
    assert ended.state_reason == f"cancelled with its batch by {OPERATOR.spiffe_id}"
    again = (await work.tasks.batches.cancel(OPERATOR, batch.batch_id))[2]
    assert (again.cancelled, again.asked) == (0, 0)
    # Neither of the two ever comes back.
    for agent_id in ("b01", "b02"):
        await work.leave(agent_id)
    work.advance(3_000)
    await work.sweep.run()
    states = Counter([await work.state(f"{batch.batch_id}.{one}") for one in ids])
    assert states == {TaskState.SUCCEEDED: 1, TaskState.CANCELLED: 3}
    assert leased.task_id != running.task_id


@pytest.mark.usefixtures("by_hand")
async def test_a_batch_that_is_cancelled_while_it_expands_makes_no_further_task(work: TasksWorld) -> None:
    ids = await enrol(work, 7)
    batch = await work.batch(OSLO)
    await one_slice(work)
    found, _, cancelled = await work.tasks.batches.cancel(OPERATOR, batch.batch_id)
    assert (found.state, found.task_count, cancelled.cancelled) == (BatchState.CANCELLED, 2, 2)
    assert await work.tasks.batches.expand() == 0
    assert await of_batch(work, batch.batch_id) == ids[:2]
    assert await work.counts() == {}


async def test_a_batch_that_does_not_exist_is_not_found(work: TasksWorld) -> None:
    with pytest.raises(NotFound) as refused:
        await work.tasks.batches.cancel(OPERATOR, "x")
    assert refused.value.reason == "TASK_UNKNOWN"


@pytest.mark.usefixtures("by_hand")
async def test_a_batch_that_expands_is_kept(work: TasksWorld) -> None:
    await enrol(work, 5)
    batch = await work.batch(OSLO)
    work.advance(86_400)
    await work.tasks.prune(work.world.clock.now())
    assert (await work.tasks.batches.get(batch.batch_id))[0].state is BatchState.EXPANDING
