"""What becomes of tasks that are over for long: everything of theirs goes, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text

from controlplane.agents.rules import Presence, PresenceReason
from controlplane.errors import NotFound
from controlplane.storage.location import Location
from controlplane.storage.sqlite import driver
from controlplane.storage.watching import Change
from controlplane.tasks import retention
from controlplane.tasks.records import Chosen
from controlplane.tasks.rules import TaskState
from controlplane.tasks.store import retention as store
from tests.contracts.agents_world import OPERATOR
from tests.contracts.tasks_world import TasksWorld, new_task, open_tasks_world

DAY = 86_400
KEPT = timedelta(days=90)


@pytest_asyncio.fixture
async def work(location: Location) -> AsyncIterator[TasksWorld]:
    async with open_tasks_world(location) as opened:
        yield opened


async def prune(work: TasksWorld) -> int:
    return await work.tasks.prune(work.world.clock.now() - KEPT)


async def ended(work: TasksWorld, chunks: int = 0) -> tuple[str, str]:
    """Run a task to its end with some chunks of output; returns its id and its attempt's."""
    task_id, attempt_id = await work.begin()
    for number in range(chunks):
        await work.output(attempt_id, number * 3, b"abc")
    await work.finished(work.finishing(attempt_id, lengths=(chunks * 3, 0, 0)))
    return task_id, attempt_id


async def counts(work: TasksWorld) -> dict[str, int]:
    tables = ("tasks", "task_attempts", "task_output", "task_batches")
    return {table: (await work.rows(f"SELECT COUNT(*) FROM {table}"))[0][0] for table in tables}


async def test_a_final_task_goes_with_its_attempts_and_output_once_its_time_is_over(work: TasksWorld) -> None:
    old, _ = await ended(work, chunks=3)
    work.advance(DAY)
    young, _ = await ended(work, chunks=2)
    work.advance(90 * DAY - 1)
    assert await prune(work) == 1
    assert [row.task_id for row in await work.rows("SELECT task_id FROM tasks")] == [young]
    assert await counts(work) == {"tasks": 1, "task_attempts": 1, "task_output": 2, "task_batches": 0}
    with pytest.raises(NotFound, match="there is no tasks/"):
        await work.get(old)
    assert await prune(work) == 0


async def test_a_task_that_is_not_final_stays_however_old_it_is(work: TasksWorld) -> None:
    queued = await work.create("a2", queue=400 * DAY)
    running, _ = await work.begin(limit=400 * DAY)
    work.advance(200 * DAY)
    assert await prune(work) == 0
    assert {await work.state(queued), await work.state(running)} == {TaskState.QUEUED, TaskState.RUNNING}


@pytest.mark.parametrize(("tasks", "chunks"), [(2, 200), (500, 3), (1, 1), (7, 3)])
async def test_many_are_deleted_over_many_transactions(
    tasks: int, chunks: int, work: TasksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TASKS", tasks)
    monkeypatch.setattr(retention, "CHUNKS", chunks)
    for number in range(7):
        await ended(work, chunks=number)
    work.advance(91 * DAY)
    kept, _ = await ended(work, chunks=4)
    assert await prune(work) == 7
    assert await counts(work) == {"tasks": 1, "task_attempts": 1, "task_output": 4, "task_batches": 0}
    if work.world.database.dialect == "sqlite":  # PostgreSQL refuses what would be found here
        assert await work.rows("PRAGMA foreign_key_check") == []
    assert await work.state(kept) is TaskState.SUCCEEDED


async def test_who_writes_comes_in_between_two_slices(
    work: TasksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TASKS", 1)
    for _ in range(40):
        await ended(work)
    work.advance(91 * DAY)
    pruning = asyncio.create_task(prune(work))
    left = []
    for _ in range(3):
        await work.world.report("a2", 1, Presence.STALE, PresenceReason.STREAM_LOST)
        left.append((await counts(work))["tasks"])
    assert not pruning.done()
    assert 0 < left[2] <= left[1] <= left[0] <= 40
    assert await pruning == 40


async def test_a_batch_goes_with_the_last_of_its_tasks(work: TasksWorld) -> None:
    batch = await work.tasks.batches.create(OPERATOR, Chosen(""), new_task(queue=DAY), "", allow_empty=False)
    empty = await work.tasks.batches.create(
        OPERATOR, Chosen("agent_id = nobody"), new_task(), "", allow_empty=True
    )
    (assigned,) = await work.lease("a1")
    await work.accept(assigned.attempt_id)
    await work.finish(assigned.attempt_id)
    work.advance(2 * DAY)
    await work.sweep.run()
    work.advance(90 * DAY - 1)
    assert await prune(work) == 1
    found, states = await work.tasks.batches.get(batch.batch_id)
    assert found.task_count == 2
    assert states == [(TaskState.EXPIRED, 1)]
    with pytest.raises(NotFound):
        await work.tasks.batches.get(empty.batch_id)
    work.advance(DAY)
    assert await prune(work) == 1
    with pytest.raises(NotFound):
        await work.tasks.batches.get(batch.batch_id)


async def test_a_late_result_of_a_deleted_task_is_one_of_an_attempt_that_is_not_known(
    work: TasksWorld,
) -> None:
    _, attempt_id = await ended(work)
    work.advance(91 * DAY)
    await prune(work)
    with pytest.raises(NotFound, match="forget it"):
        await work.finish(attempt_id)


async def test_a_watch_is_told_nothing_and_goes_on(work: TasksWorld) -> None:
    await ended(work)
    async with aclosing(work.tasks.watch("", "")) as changes:
        assert (await anext(changes))[0] is Change.EXISTING
        kind, _, token = await anext(changes)
        assert kind is Change.SYNCED
        work.advance(91 * DAY)
        assert await prune(work) == 1
        later = await work.create()
        kind, task, _ = await anext(changes)
        assert (kind, task and task.task_id) == (Change.CHANGED, later)
    async with aclosing(work.tasks.watch("", token)) as changes:
        kind, task, _ = await anext(changes)
        assert (kind, task and task.task_id) == (Change.CHANGED, later)


async def test_finding_what_is_over_scans_no_table(work: TasksWorld) -> None:
    if work.world.database.dialect != "sqlite":
        pytest.skip("PostgreSQL plans by the sizes of the tables: empty ones are scanned")
    asked: list[str] = []
    async with work.world.database.unit_of_work() as unit:
        await driver.of(unit.connection).set_trace_callback(asked.append)
        await store.ended_before(unit, 5, 10)
        await store.delete_output(unit, ["a", "b"], 10)
        await store.delete_tasks(unit, ["a", "b"])
        await store.delete_batches(unit, 5, 10)
        await driver.of(unit.connection).set_trace_callback(None)  # type: ignore[arg-type]  # the library's types forget it
        steps = [
            str(row[-1])
            for statement in asked
            if statement.startswith(("SELECT", "DELETE"))
            for row in await unit.connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"))
        ]
    assert len(steps) > 4
    assert [step for step in steps if step.startswith("SCAN")] == []
