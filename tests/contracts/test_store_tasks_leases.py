"""Handing out work, and what an agent's journal tells of it, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from controlplane.errors import NotFound
from controlplane.storage.location import Location
from controlplane.tasks.operations import Adopt, Adopted, Disposition
from controlplane.tasks.rules import Acceptance, AttemptState, Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.tasks_world import TasksWorld, open_tasks_world


@pytest_asyncio.fixture
async def work(location: Location) -> AsyncIterator[TasksWorld]:
    async with open_tasks_world(location) as opened:
        yield opened


# --- leases


async def test_work_goes_out_by_priority_then_creation(work: TasksWorld) -> None:
    low = [await work.create()]
    work.advance(1)
    low.append(await work.create())
    high = await work.create(priority=7)
    work.advance(1)
    middle = await work.create(priority=3)
    assert [assigned.task_id for assigned in await work.lease()] == [high, middle, *low]


async def test_no_more_goes_out_than_the_agent_can_take(work: TasksWorld) -> None:
    for _ in range(5):
        await work.create()
    assert len(await work.lease(limit=2)) == 2
    assert len(await work.lease(limit=2)) == 2
    assert len(await work.lease(limit=2)) == 1
    assert await work.lease(limit=2) == ()


async def test_agents_that_lease_at_once_each_get_their_own_within_their_limits(work: TasksWorld) -> None:
    mine = [await work.create("a1") for _ in range(3)]
    theirs = [await work.create("a2") for _ in range(3)]
    first, second = await asyncio.gather(work.lease("a1", 2), work.lease("a2", 9))
    assert {assigned.task_id for assigned in first} < set(mine)
    assert len(first) == 2
    assert {assigned.task_id for assigned in second} == set(theirs)


async def test_leases_of_one_agent_at_once_hand_nothing_out_twice(work: TasksWorld) -> None:
    made = {await work.create() for _ in range(6)}
    parts = await asyncio.gather(*(work.lease(limit=2) for _ in range(4)))
    handed = [assigned.task_id for part in parts for assigned in part]
    assert len(handed) == 6
    assert set(handed) == made


async def test_a_lease_is_on_record_with_its_session_and_number(work: TasksWorld) -> None:
    task_id = await work.create(spec=b"spec", idempotent=True, limit=30)
    (assigned,) = await work.lease(epoch=4)
    assert (assigned.task_id, assigned.number, assigned.spec) == (task_id, 1, b"spec")
    assert assigned.idempotent
    assert assigned.run_limit == 30_000_000
    (attempt,) = await work.attempts(task_id)
    assert (attempt.state, attempt.session_epoch) == (AttemptState.LEASED, 4)
    task = await work.get(task_id)
    assert (task.state, task.attempt_count) == (TaskState.LEASED, 1)


async def test_what_waited_too_long_is_not_handed_out(work: TasksWorld) -> None:
    await work.create(queue=10)
    work.advance(10)
    assert await work.lease() == ()
    assert not await work.tasks.has_work("a1")


async def test_an_agent_has_work_while_something_waits_or_was_not_taken(work: TasksWorld) -> None:
    assert not await work.tasks.has_work("a1")
    task_id, attempt_id = await work.create(), ""
    assert await work.tasks.has_work("a1")
    assert not await work.tasks.has_work("a2")
    (assigned,) = await work.lease()
    attempt_id = assigned.attempt_id
    assert await work.tasks.has_work("a1")
    await work.accept(attempt_id)
    assert not await work.tasks.has_work("a1")
    await work.tasks.cancel(OPERATOR, task_id)
    assert await work.tasks.has_work("a1")


async def test_a_session_that_has_a_successor_is_handed_nothing(work: TasksWorld) -> None:
    await work.create("a1")
    await work.world.open("a1", shown=b"n1", handed=b"n2", gateway="g2")
    assert await work.lease("a1", epoch=1) == ()
    assert await work.adopt({}, "a1", epoch=1) == (set(), [])
    mixed = await asyncio.gather(work.lease("a1", epoch=1), work.lease("a1", epoch=2))
    assert [len(assigned) for assigned in mixed] == [0, 1]


async def test_those_with_waiting_work_are_woken_again(work: TasksWorld) -> None:
    await work.create("a2")
    assert work.woken == ["a2"]
    await work.begin()
    work.woken.clear()
    await work.tasks.wake_waiting()
    assert work.stopping == ["a2"]


async def test_an_attempt_whose_stop_was_not_heard_of_is_woken_for_again(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    await work.tasks.wake_waiting()
    assert work.stopping == []
    await work.tasks.cancel(OPERATOR, task_id)
    work.stopping.clear()
    await work.tasks.wake_waiting()
    assert work.stopping == ["a1"]
    assert await work.tasks.cancellations("a1") == [attempt_id]
    await work.finish(attempt_id, Outcome.CANCELLED)
    work.stopping.clear()
    await work.tasks.wake_waiting()
    assert work.stopping == []


# --- accepting and adopting


async def test_an_accepted_attempt_runs_against_its_deadline(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin(limit=100)
    (attempt,) = await work.attempts(task_id)
    assert attempt.state is AttemptState.RUNNING
    assert attempt.accept_time == work.now
    assert attempt.run_deadline == work.now + 160_000_000
    assert await work.accept(attempt_id) is Acceptance.KNOWN
    assert await work.state(task_id) is TaskState.RUNNING


async def test_another_agents_attempt_is_unknown_and_nothing_changes(work: TasksWorld) -> None:
    await work.create()
    (assigned,) = await work.lease()
    before = await work.rows("SELECT * FROM task_attempts"), await work.rows("SELECT * FROM tasks")
    for refused in (
        work.accept(assigned.attempt_id, "a2"),
        work.progress(assigned.attempt_id, 5, "a2"),
        work.output(assigned.attempt_id, 0, b"x", agent_id="a2"),
        work.finish(assigned.attempt_id, agent_id="a2"),
        work.finish("no such attempt"),
    ):
        with pytest.raises(NotFound) as error:
            await refused
        assert error.value.reason == "ATTEMPT_UNKNOWN"
    assert (await work.rows("SELECT * FROM task_attempts"), await work.rows("SELECT * FROM tasks")) == before
    assert await work.rows("SELECT * FROM task_output") == []


async def test_a_refused_neighbour_does_not_disturb_the_others(work: TasksWorld) -> None:
    _, attempt_id = await work.begin()
    outcomes = await asyncio.gather(
        work.finish("unknown"), work.finish(attempt_id), work.accept("unknown"), return_exceptions=True
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["NotFound", "Disposition", "NotFound"]


async def test_a_lease_that_is_not_in_the_journal_is_sent_again_as_the_same_attempt(work: TasksWorld) -> None:
    await work.create()
    first = await work.lease()
    await work.world.open("a1", shown=b"n1", handed=b"n2")
    stop, again = await work.adopt({}, epoch=2)
    assert (stop, again) == (set(), list(first))
    work.advance(3_000)
    await work.sweep.run()
    (attempt,) = await work.attempts(first[0].task_id)
    assert (attempt.state, attempt.session_epoch) == (AttemptState.LEASED, 2)


async def test_a_journalled_attempt_is_adopted_and_not_sent_again(work: TasksWorld) -> None:
    task_id = await work.create()
    (assigned,) = await work.lease()
    assert await work.adopt({assigned.attempt_id: False}, epoch=2) == (set(), [])
    assert await work.state(task_id) is TaskState.RUNNING
    assert await work.adopt({assigned.attempt_id: False}, epoch=3) == (set(), [])


async def test_many_agents_list_their_journals_in_one_commit(work: TasksWorld) -> None:
    tasks = [await work.create(agent_id) for agent_id in ("a1", "a2")]
    leased = [(await work.lease(agent_id))[0] for agent_id in ("a1", "a2")]
    first, second = await asyncio.gather(
        work.adopt({leased[0].attempt_id: False}, "a1", 2), work.adopt({}, "a2", 2)
    )
    assert first == (set(), [])
    assert second == (set(), [leased[1]])
    assert [await work.state(task_id) for task_id in tasks] == [TaskState.RUNNING, TaskState.LEASED]


async def test_a_journal_of_more_entries_than_sqlite_has_parameters_is_compared_whole(
    work: TasksWorld,
) -> None:
    for _ in range(10):
        await work.create()
    leased = await work.lease()
    journal = {assigned.attempt_id: False for assigned in leased[:5]}
    unknown = {f"unknown-{number}" for number in range(40_000)}
    stop, again = await work.adopt(dict.fromkeys(unknown, False) | journal, epoch=2)
    assert stop == unknown
    assert {assigned.attempt_id for assigned in again} == {one.attempt_id for one in leased[5:]}
    assert await work.counts() == {TaskState.RUNNING: 5, TaskState.LEASED: 5}


async def test_unknown_and_foreign_attempts_are_to_be_stopped_unless_finished(work: TasksWorld) -> None:
    await work.create("a2")
    (foreign,) = await work.lease("a2")
    journal = {"unknown": False, "finished": True, foreign.attempt_id: False}
    assert await work.adopt(journal) == ({"unknown", foreign.attempt_id}, [])
    assert await work.state(foreign.task_id) is TaskState.LEASED


async def test_an_attempt_of_a_final_task_is_to_be_stopped(work: TasksWorld) -> None:
    task_id = await work.create(queue=10)
    (assigned,) = await work.lease()
    work.advance(11)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.EXPIRED
    assert await work.adopt({assigned.attempt_id: False}) == ({assigned.attempt_id}, [])
    assert await work.accept(assigned.attempt_id) is Acceptance.STOP
    assert await work.adopt({assigned.attempt_id: True}) == (set(), [])


async def test_a_journalled_attempt_that_is_to_be_cancelled_runs_and_is_to_be_stopped(
    work: TasksWorld,
) -> None:
    task_id = await work.create()
    (assigned,) = await work.lease()
    await work.tasks.cancel(OPERATOR, task_id)
    assert await work.adopt({assigned.attempt_id: False}) == ({assigned.attempt_id}, [])
    assert await work.state(task_id) is TaskState.RUNNING
    assert await work.tasks.cancellations("a1") == [assigned.attempt_id]


async def test_a_lapsed_attempt_that_is_in_the_journal_after_all_is_taken_back(work: TasksWorld) -> None:
    task_id = await work.create()
    (first,) = await work.lease()
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.QUEUED
    assert await work.adopt({first.attempt_id: False}, epoch=2) == (set(), [])
    assert await work.state(task_id) is TaskState.RUNNING
    assert await work.lease() == ()


async def lapsed_then_leased(work: TasksWorld) -> tuple[str, str, str]:
    """Return (task id, lapsed attempt, leased attempt)."""
    task_id = await work.create(idempotent=True, attempts=3)
    (first,) = await work.lease()
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    (second,) = await work.lease(epoch=2)
    return task_id, first.attempt_id, second.attempt_id


async def test_a_lapsed_attempt_that_runs_takes_the_place_of_the_lease_after_it(work: TasksWorld) -> None:
    task_id, first, second = await lapsed_then_leased(work)
    assert await work.accept(first) is Acceptance.RUN
    states = [attempt.state for attempt in await work.attempts(task_id)]
    assert states == [AttemptState.RUNNING, AttemptState.LAPSED]
    assert await work.accept(second) is Acceptance.STOP
    work.advance(3_000)
    await work.sweep.run()  # once failed for every task where a lease was left behind like this
    assert await work.adopt({first: False, second: False}, epoch=3) == ({first}, [])


async def test_a_lapsed_attempt_in_the_journal_keeps_the_lease_after_it_from_being_sent(
    work: TasksWorld,
) -> None:
    task_id, first, _ = await lapsed_then_leased(work)
    assert await work.adopt({first: False}, epoch=3) == (set(), [])
    states = [attempt.state for attempt in await work.attempts(task_id)]
    assert states == [AttemptState.RUNNING, AttemptState.LAPSED]


async def test_of_two_attempts_of_a_task_in_one_commit_one_runs(work: TasksWorld) -> None:
    task_id, first, second = await lapsed_then_leased(work)
    answers = await asyncio.gather(work.accept(first), work.accept(second))
    assert sorted(answer.name for answer in answers) == ["RUN", "STOP"]
    running = [attempt for attempt in await work.attempts(task_id) if attempt.state is AttemptState.RUNNING]
    assert len(running) == 1


async def test_a_failure_of_the_lapsed_attempt_leaves_the_task_to_the_one_after_it(work: TasksWorld) -> None:
    task_id, first, second = await lapsed_then_leased(work)
    await work.accept(second)
    await work.finish(first, Outcome.FAILED)
    assert await work.state(task_id) is TaskState.RUNNING
    await work.finish(second)
    assert await work.state(task_id) is TaskState.SUCCEEDED


@pytest.mark.parametrize("taken", [False, True])
async def test_a_success_of_the_lapsed_attempt_ends_the_one_after_it(work: TasksWorld, taken: bool) -> None:
    task_id, first, second = await lapsed_then_leased(work)
    if taken:
        await work.accept(second)
    finished = await work.finished(work.finishing(first))
    assert (finished.disposition, finished.stop) == (Disposition.COMMITTED, (second,))
    ended = [attempt for attempt in await work.attempts(task_id) if attempt.attempt_id == second]
    state = AttemptState.ABANDONED if taken else AttemptState.LAPSED
    assert [(attempt.state, attempt.end_time) for attempt in ended] == [(state, work.now)]
    # Heard of by an agent that lost the order to stop with its stream.
    assert await work.adopt({second: False}, epoch=3) == ({second}, [])
    work.advance(61)
    await work.tasks.wake_waiting()
    assert work.stopping == []
    assert await work.finish(second, Outcome.CANCELLED) is Disposition.COMMITTED
    assert await work.state(task_id) is TaskState.SUCCEEDED


async def test_results_of_two_attempts_of_a_task_in_one_commit_decide_it_once(work: TasksWorld) -> None:
    task_id, first, second = await lapsed_then_leased(work)
    await work.accept(second)
    await asyncio.gather(work.finish(second), work.finish(first, Outcome.INTERRUPTED))
    task = await work.get(task_id)
    assert task.state is TaskState.SUCCEEDED
    assert task.result is not None
    assert second.encode() in task.result
    assert [attempt.state for attempt in await work.attempts(task_id)] == [AttemptState.FINISHED] * 2


async def test_a_lost_journal_interrupts_what_is_not_idempotent_and_repeats_what_is(work: TasksWorld) -> None:
    once, _ = await work.begin()
    often, attempt_id = await work.begin(idempotent=True)
    other = await work.create("a2")
    await work.lease("a2")
    assert await work.lose_journal() == 2
    states = [await work.state(task_id) for task_id in (once, often, other)]
    assert states == [TaskState.INTERRUPTED, TaskState.QUEUED, TaskState.LEASED]
    assert [attempt.state for attempt in await work.attempts(often)] == [AttemptState.ABANDONED]
    assert await work.lose_journal() == 0
    assert await work.adopt({attempt_id: False}) == ({attempt_id}, [])
    assert await work.again() != attempt_id


async def test_a_journal_and_a_lease_share_a_commit_and_their_limit(work: TasksWorld) -> None:
    for _ in range(5):
        await work.create()
    (sent,) = await work.lease(limit=1)
    adopted = await work.world.writer.submit(Adopt("a1", 2, (), work.now, limit=3))
    assert [one.attempt_id for one in adopted.resend] == [sent.attempt_id]
    assert len(adopted.leased) == 2
    assert {one.task_id for one in adopted.leased}.isdisjoint({sent.task_id})


async def test_a_journal_that_is_only_reported_leases_nothing(work: TasksWorld) -> None:
    await work.create()
    adopted = await work.world.writer.submit(Adopt("a1", 2, (), work.now, limit=0))
    assert adopted == Adopted((), ())


async def test_a_task_that_is_tried_again_keeps_its_place(work: TasksWorld) -> None:
    first = await work.create(attempts=3)
    (assigned,) = await work.lease(limit=1)
    work.advance(1)
    second, urgent = await work.create(), await work.create(priority=1)
    await work.finish(assigned.attempt_id, Outcome.FAILED)
    work.advance(600)
    assert [one.task_id for one in await work.lease()] == [urgent, first, second]


async def test_a_copied_journal_does_not_run_again_what_has_its_result(work: TasksWorld) -> None:
    _, attempt_id = await work.begin()
    assert await work.finish(attempt_id) is Disposition.COMMITTED
    # A copy of before: the result is not in it.
    assert await work.adopt({attempt_id: False}, epoch=2) == ({attempt_id}, [])
    # The agent itself, whose acknowledgement was lost.
    assert await work.adopt({attempt_id: True}, epoch=3) == (set(), [])
    assert await work.finish(attempt_id, Outcome.CANCELLED) is Disposition.DUPLICATE
