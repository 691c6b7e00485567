"""Results, retries, output and the sweep on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from controlplane.errors import InvalidArgument, NotFound, ResourceExhausted
from controlplane.storage.location import Location
from controlplane.tasks import chunks, sweeping
from controlplane.tasks.operations import Disposition
from controlplane.tasks.records import Chunk
from controlplane.tasks.rules import AttemptState, Outcome, TaskState
from controlplane.tasks.sweeping import Swept
from tests.contracts.tasks_world import TasksWorld, open_tasks_world


@pytest_asyncio.fixture
async def work(location: Location) -> AsyncIterator[TasksWorld]:
    async with open_tasks_world(location) as opened:
        yield opened


# --- results


async def test_a_result_decides_its_task(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    work.advance(5)
    assert await work.finish(attempt_id) is Disposition.COMMITTED
    task = await work.get(task_id)
    assert (task.state, task.state_reason, task.state_time) == (TaskState.SUCCEEDED, "succeeded", work.now)
    assert task.result == f"result SUCCEEDED of {attempt_id}".encode()
    (attempt,) = await work.attempts(task_id)
    assert (attempt.state, attempt.end_time, attempt.result) == (
        AttemptState.FINISHED,
        work.now,
        b"result",
    )


async def test_the_same_result_again_changes_nothing(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    first = await work.finish(attempt_id)
    before = await work.get(task_id)
    work.advance(1)
    again = await asyncio.gather(work.finish(attempt_id), work.finish(attempt_id, Outcome.FAILED))
    assert [first, *again] == [Disposition.COMMITTED, Disposition.DUPLICATE, Disposition.DUPLICATE]
    assert await work.get(task_id) == before


async def test_of_two_results_of_an_attempt_in_one_commit_the_first_counts(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    both = work.finish(attempt_id), work.finish(attempt_id, Outcome.FAILED)
    answers = tuple(await asyncio.gather(*both))
    assert answers == (Disposition.COMMITTED, Disposition.DUPLICATE)
    assert await work.state(task_id) is TaskState.SUCCEEDED


async def test_a_result_may_overtake_its_acceptance(work: TasksWorld) -> None:
    task_id = await work.create()
    (assigned,) = await work.lease()
    assert await work.finish(assigned.attempt_id) is Disposition.COMMITTED
    await work.accept(assigned.attempt_id)
    assert await work.state(task_id) is TaskState.SUCCEEDED


async def test_a_late_result_of_a_lapsed_attempt_decides_the_task_that_waits_again(work: TasksWorld) -> None:
    task_id = await work.create()
    (assigned,) = await work.lease()
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    assert await work.finish(assigned.attempt_id) is Disposition.COMMITTED
    assert await work.state(task_id) is TaskState.SUCCEEDED
    assert await work.lease() == ()


async def test_a_result_after_its_attempt_was_given_up_is_kept_beside_it(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin(limit=10)
    work.advance(71)
    await work.sweep.run()
    before = await work.get(task_id)
    assert before.state is TaskState.FAILED
    assert await work.finish(attempt_id) is Disposition.COMMITTED
    assert await work.get(task_id) == before
    (attempt,) = await work.attempts(task_id)
    assert (attempt.state, attempt.result) == (AttemptState.FINISHED, b"result")


async def test_a_failure_that_was_counted_when_it_was_given_up_is_not_counted_again(work: TasksWorld) -> None:
    task_id, first = await work.begin(limit=10, idempotent=True, attempts=2)
    work.advance(71)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.QUEUED
    await work.finish(first, Outcome.TIMED_OUT)
    assert await work.state(task_id) is TaskState.QUEUED
    second = await work.again()
    await work.finish(second, Outcome.FAILED)
    assert await work.state(task_id) is TaskState.DEAD


async def test_a_late_success_saves_the_task_the_second_run(work: TasksWorld) -> None:
    task_id, first = await work.begin(limit=10, idempotent=True, attempts=2)
    work.advance(71)
    await work.sweep.run()
    await work.finish(first)
    assert await work.state(task_id) is TaskState.SUCCEEDED
    work.advance(600)
    assert await work.lease() == ()


async def test_a_task_that_fails_waits_longer_each_time_and_then_is_dead(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin(attempts=3)
    for wait in (5, 10):
        await work.finish(attempt_id, Outcome.FAILED)
        assert await work.state(task_id) is TaskState.QUEUED
        work.advance(wait - 1)
        assert await work.lease() == ()
        assert not await work.tasks.has_work("a1")
        work.advance(1)
        (assigned,) = await work.lease()
        attempt_id = assigned.attempt_id
    await work.finish(attempt_id, Outcome.FAILED)
    task = await work.get(task_id)
    assert (task.state, task.attempt_count) == (TaskState.DEAD, 3)
    assert task.result is not None
    assert [attempt.number for attempt in await work.attempts(task_id)] == [1, 2, 3]


async def test_an_interrupted_task_runs_again_only_if_idempotent(work: TasksWorld) -> None:
    once, first = await work.begin()
    await work.finish(first, Outcome.INTERRUPTED)
    often, second = await work.begin(idempotent=True)
    await work.finish(second, Outcome.INTERRUPTED)
    assert await work.state(once) is TaskState.INTERRUPTED
    assert await work.state(often) is TaskState.QUEUED
    await work.finish(await work.again())
    assert await work.state(often) is TaskState.SUCCEEDED


async def test_progress_is_of_the_running_attempt(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin(attempts=2)
    await work.progress(attempt_id, 40)
    task = await work.get(task_id)
    assert (task.progress_percent, task.progress_message) == (40, "40 %")
    await work.finish(attempt_id, Outcome.FAILED)
    second = await work.again()
    assert (await work.get(task_id)).progress_percent == 0
    await work.progress(attempt_id, 90)
    await work.progress(second, 20)  # not accepted yet
    assert (await work.get(task_id)).progress_percent == 0


# --- output


async def read(work: TasksWorld, task_id: str, stream: int = 0) -> list[Chunk]:
    return [chunk async for chunk in work.tasks.output(task_id, stream)]


async def test_output_is_read_as_it_came(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    await work.output(attempt_id, 0, b"one")
    await work.output(attempt_id, 0, b"ERR", stream=2)
    await work.output(attempt_id, 3, b"two")
    assert await read(work, task_id) == [Chunk(1, 0, b"one"), Chunk(2, 0, b"ERR"), Chunk(1, 3, b"two")]
    assert await read(work, task_id, 2) == [Chunk(2, 0, b"ERR")]
    assert await read(work, task_id, 3) == []


async def test_output_that_comes_twice_is_kept_once(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    await asyncio.gather(*(work.output(attempt_id, 0, b"abc") for _ in range(3)))
    await work.output(attempt_id, 3, b"def")
    await work.output(attempt_id, 1, b"bc")
    await work.finish(attempt_id)
    await work.output(attempt_id, 0, b"abc")
    await work.output(attempt_id, 6, b"after the end")
    assert b"".join(chunk.data for chunk in await read(work, task_id)) == b"abcdef"


async def test_a_gap_in_output_says_what_is_missing(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    await work.output(attempt_id, 0, b"abc")
    with pytest.raises(InvalidArgument) as refused:
        await work.output(attempt_id, 5, b"x")
    assert refused.value.reason == "PROTOCOL_VIOLATION"
    assert refused.value.metadata == {"expected_offset": "3"}
    assert len(await read(work, task_id)) == 1


async def test_output_ends_at_its_limit(work: TasksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_OUTPUT_BYTES", 10)
    task_id, attempt_id = await work.begin()
    await work.output(attempt_id, 0, b"12345")
    await work.output(attempt_id, 0, b"12345", stream=2)
    with pytest.raises(ResourceExhausted) as refused:
        await work.output(attempt_id, 5, b"6")
    assert refused.value.reason == "LIMIT_EXCEEDED"
    assert len(await read(work, task_id)) == 2


async def test_output_of_many_chunks_is_read_whole_and_of_the_last_attempt_that_has_any(
    work: TasksWorld,
) -> None:
    task_id, first = await work.begin(attempts=3)
    await work.output(first, 0, b"old")
    await work.finish(first, Outcome.FAILED)
    second = await work.again()
    await asyncio.gather(*(work.output(second, at, bytes([at])) for at in range(70)))
    await work.finish(second, Outcome.FAILED)
    await work.again()
    assert b"".join(chunk.data for chunk in await read(work, task_id)) == bytes(range(70))


async def test_output_of_an_unknown_task_is_refused(work: TasksWorld) -> None:
    with pytest.raises(NotFound):
        await read(work, "none")


# --- the sweep


async def test_what_was_not_begun_in_time_expires(work: TasksWorld) -> None:
    waiting, (running, _) = await work.create("a2", queue=10), await work.begin(queue=10)
    work.advance(9)
    assert await work.sweep.run() == Swept(0, 0, 0)
    work.advance(1)
    assert await work.sweep.run() == Swept(1, 0, 0)
    assert await work.state(waiting) is TaskState.EXPIRED
    assert await work.state(running) is TaskState.RUNNING
    assert await work.sweep.run() == Swept(0, 0, 0)


async def test_a_lease_lapses_only_where_its_session_is_gone(work: TasksWorld) -> None:
    stays, gone = await work.create("a1"), await work.create("a2")
    await work.lease("a1")
    await work.lease("a2")
    await work.leave("a2")
    work.advance(59)
    assert await work.sweep.run() == Swept(0, 0, 0)
    work.advance(1)
    assert await work.sweep.run() == Swept(0, 1, 0)
    assert [await work.state(task_id) for task_id in (stays, gone)] == [TaskState.LEASED, TaskState.QUEUED]
    await work.world.open("a1", shown=b"n1", handed=b"n2")
    assert await work.sweep.run() == Swept(0, 1, 0)
    assert await work.state(stays) is TaskState.QUEUED
    (assigned,) = await work.lease("a1", epoch=2)
    assert assigned.number == 2


async def test_an_attempt_past_its_run_limit_is_given_up_however_the_agent_fares(work: TasksWorld) -> None:
    once, _ = await work.begin(limit=10)
    often, _ = await work.begin(limit=10, idempotent=True, attempts=2)
    work.advance(69)
    assert await work.sweep.run() == Swept(0, 0, 0)
    work.advance(1)
    assert await work.sweep.run() == Swept(0, 0, 2)
    assert [await work.state(task_id) for task_id in (once, often)] == [TaskState.FAILED, TaskState.QUEUED]
    (attempt,) = await work.attempts(once)
    assert attempt.state is AttemptState.ABANDONED


async def test_a_sweep_goes_on_until_nothing_is_due(
    work: TasksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "STEP", 2)
    for _ in range(5):
        await work.create(queue=10)
    work.advance(10)
    assert await work.sweep.run() == Swept(5, 0, 0)


async def test_a_sweep_forgets_requests_after_two_days(work: TasksWorld) -> None:
    task_id = await work.create(request_id="r", queue=10_000_000)
    work.advance(47 * 3_600)
    await work.sweep.run()
    assert await work.create(request_id="r", queue=10_000_000) == task_id
    work.advance(2 * 3_600)
    await work.sweep.run()
    assert await work.create(request_id="r", queue=10_000_000) != task_id


# --- output that is missing


async def test_a_result_whose_output_has_not_all_come_is_refused_and_taken_once_it_has(
    work: TasksWorld,
) -> None:
    task_id, attempt_id = await work.begin()
    await work.output(attempt_id, 0, b"abc")
    whole = work.finishing(attempt_id, lengths=(6, 0, 0))
    gap, refused = await asyncio.gather(
        work.output(attempt_id, 4, b"ef"), work.finished(whole), return_exceptions=True
    )
    assert isinstance(gap, InvalidArgument)
    assert isinstance(refused, InvalidArgument)
    assert refused.reason == "PROTOCOL_VIOLATION"
    assert refused.metadata == {
        "attempt_id": attempt_id,
        "output": "stdout_bytes",
        "expected_offset": "3",
    }
    assert await work.state(task_id) is TaskState.RUNNING
    await work.output(attempt_id, 3, b"def")
    assert (await work.finished(whole)).disposition is Disposition.COMMITTED
    assert await work.state(task_id) is TaskState.SUCCEEDED


async def test_a_result_that_names_less_output_than_came_passes(work: TasksWorld) -> None:
    """An agent that does not know an attempt any more reports it cancelled, without any output."""
    task_id, attempt_id = await work.begin()
    await work.output(attempt_id, 0, b"abc", stream=3)
    assert await work.finish(attempt_id, Outcome.CANCELLED) is Disposition.COMMITTED
    assert await work.state(task_id) is TaskState.INTERRUPTED


async def test_a_repeated_result_is_a_duplicate_whatever_lengths_it_names(work: TasksWorld) -> None:
    _, attempt_id = await work.begin()
    await work.finish(attempt_id)
    again = await work.finished(work.finishing(attempt_id, lengths=(0, 7, 0)))
    assert again.disposition is Disposition.DUPLICATE


@pytest.mark.parametrize(("idempotent", "state"), [(False, TaskState.INTERRUPTED), (True, TaskState.QUEUED)])
async def test_a_lapsed_attempt_may_have_run_in_a_journal_that_is_lost(
    work: TasksWorld, idempotent: bool, state: TaskState
) -> None:
    """The word that it was journalled may have been lost with the connection."""
    task_id = await work.create(idempotent=idempotent)
    await work.lease()
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.QUEUED
    await work.world.open("a1", journal="j2")
    assert await work.state(task_id) is state
    assert [attempt.state for attempt in await work.attempts(task_id)] == [AttemptState.ABANDONED]
