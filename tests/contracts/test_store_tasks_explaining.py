"""Explanations from what is really stored: the facts reach the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from controlplane.agents.rules import Presence
from controlplane.errors import NotFound
from controlplane.storage.location import Location
from controlplane.tasks.explaining.rules import Code
from controlplane.tasks.ledger.events import DeliveryEvent
from controlplane.tasks.ledger.observing import Observations
from controlplane.tasks.rules import Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.explaining_world import Explaining, open_explaining
from tests.contracts.tasks_world import SECOND


@pytest_asyncio.fixture
async def explaining(location: Location) -> AsyncIterator[Explaining]:
    async with open_explaining(location) as opened:
        yield opened


async def test_a_queued_task_knows_who_goes_before_it_and_what_the_agent_has(explaining: Explaining) -> None:
    work = explaining.work
    first, second = await work.create(), await work.create()
    work.advance(1)
    late, urgent = await work.create(), await work.create(priority=9)
    await work.create("a2", priority=50)
    assert await explaining.codes(urgent) == ([Code.NEXT_IN_QUEUE], [Code.SENT_SOON, Code.EXPIRES])
    assert await explaining.text(late, Code.BEHIND_OTHERS) == (
        "3 tasks go to the agent before it, of a higher priority or created earlier."
    )
    assert await explaining.codes(late) == ([Code.BEHIND_OTHERS], [Code.SENT_SOON, Code.EXPIRES])
    ahead = {one: (await explaining.codes(one))[0] for one in (first, second)}
    assert sorted(ahead.values()) == [[Code.BEHIND_OTHERS], [Code.BEHIND_OTHERS]]
    await work.lease(limit=1)
    assert (await explaining.codes(late))[0] == [Code.BEHIND_OTHERS, Code.AGENT_BUSY]


async def test_a_task_of_an_agent_that_is_away_waits_for_it(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create()
    await work.leave()
    assert await explaining.codes(task_id) == (
        [Code.AGENT_OFFLINE],
        [Code.SENT_ON_RETURN, Code.EXPIRES],
    )
    await work.world.enrol("a3")
    waiting = await work.create("a3")
    assert (await explaining.codes(waiting))[0] == [Code.AGENT_NEVER_CONNECTED]


async def test_a_retry_says_when_it_is_due_and_what_failed(explaining: Explaining) -> None:
    work = explaining.work
    task_id, attempt_id = await work.begin(attempts=2)
    await work.finish(attempt_id, Outcome.FAILED)
    assert await explaining.text(task_id, Code.RETRY_WAITS) == (
        "Attempt 2 is not begun before 2024-05-01 12:00:05Z (in 5 s), so as not to hurry."
    )
    assert await explaining.text(task_id, Code.LAST_ATTEMPT) == (
        "Attempt 1 reported FAILED at 2024-05-01 12:00:00Z (0 s ago): failed."
    )


async def test_a_lease_says_whether_it_was_sent_and_when_it_ends(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create()
    (assigned,) = await work.lease()
    assert await explaining.codes(task_id) == (
        [Code.HANDED_OUT, Code.LEASE_HELD],
        [Code.JOURNALED, Code.EXPIRES],
    )
    observations = Observations(work.world.writer, lambda: work.now, lambda count: None)
    observations.note(DeliveryEvent.SENT, task_id, assigned.attempt_id, "a1", 1, work.now)
    await observations.flush()
    assert (await explaining.codes(task_id))[0] == [
        Code.HANDED_OUT,
        Code.SENT_NOT_JOURNALED,
        Code.LEASE_HELD,
    ]
    work.advance(1)
    await work.tasks.cancel(OPERATOR, task_id)
    await work.leave()
    assert await explaining.codes(task_id) == (
        [Code.HANDED_OUT, Code.SENT_NOT_JOURNALED, Code.CANCEL_REQUESTED, Code.AGENT_OFFLINE],
        [Code.CANCELLED],
    )
    assert await explaining.text(task_id, Code.CANCEL_REQUESTED) == (
        "Its cancellation was asked for at 2024-05-01 12:00:01Z (0 s ago): "
        f"cancelled by {OPERATOR.spiffe_id}."
    )
    steps = (await explaining.service.task(task_id)).explanation.next_steps
    lease_end = steps[0].latest
    work.advance(60)
    await work.sweep.run()
    ended = await work.get(task_id)
    assert ended.state is TaskState.CANCELLED
    assert lease_end is not None
    assert lease_end <= ended.state_time


async def test_what_is_said_of_a_running_task_comes_true_at_its_deadline(explaining: Explaining) -> None:
    work = explaining.work
    task_id, attempt_id = await work.begin(limit=600)
    await work.progress(attempt_id, 40)
    found = await explaining.service.task(task_id)
    assert [one.code for one in found.explanation.because] == [Code.JOURNALED, Code.PROGRESS]
    _, deadline = found.explanation.next_steps
    assert deadline.latest == work.now + 660 * SECOND
    assert deadline.text.endswith("it ends as FAILED.")
    work.advance(660)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.FAILED
    assert await explaining.codes(task_id) == ([Code.DECIDED_BY_SERVER], [Code.FINAL])


async def test_a_result_that_decided_is_named(explaining: Explaining) -> None:
    work = explaining.work
    task_id, attempt_id = await work.begin()
    work.advance(3)
    await work.finish(attempt_id)
    found = await explaining.service.task(task_id)
    assert (found.state, found.agent_id) == (TaskState.SUCCEEDED, "a1")
    assert found.explanation.since == work.now
    assert await explaining.text(task_id, Code.DECIDED_BY_RESULT) == (
        "Attempt 1 reported SUCCEEDED at 2024-05-01 12:00:03Z (0 s ago): succeeded."
    )


async def test_a_task_outlives_its_agent_and_is_explained_without_it(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create()
    await work.world.agents.delete("a1", etag="", caller=OPERATOR)
    assert await explaining.text(task_id, Code.DECIDED_BY_SERVER) == (
        "No result decided: its agent was deleted."
    )


async def test_an_agent_is_explained_with_its_work(explaining: Explaining) -> None:
    work = explaining.work
    oldest = work.now
    await work.begin()
    work.advance(5)
    await work.create(queue=100)
    await work.create(queue=50)
    found = await explaining.service.agent("a1")
    assert found.agent.presence is Presence.ONLINE
    assert found.open_counts == {TaskState.QUEUED: 2, TaskState.RUNNING: 1}
    assert found.oldest == oldest
    steps = {step.code: step.latest for step in found.explanation.next_steps}
    assert steps[Code.QUEUE_EXPIRES] == work.now + 50 * SECOND
    codes = [sentence.code for sentence in found.explanation.because]
    assert codes[0] is Code.AGENT_ONLINE
    assert {Code.JOURNAL, Code.SESSION, Code.CLOCK_OFFSET, Code.CERTIFICATE, Code.OPEN_WORK} <= set(codes)
    idle = await explaining.service.agent("a2")
    assert (idle.open_counts, idle.oldest) == ({}, None)
    assert Code.NO_OPEN_WORK in [sentence.code for sentence in idle.explanation.because]


async def test_what_is_unknown_is_refused_with_a_remedy(explaining: Explaining) -> None:
    with pytest.raises(NotFound, match="name: there is no tasks/nothing; list them") as refused:
        await explaining.service.task("nothing")
    assert refused.value.reason == "TASK_UNKNOWN"
    with pytest.raises(NotFound, match="name: there is no agents/nobody; list the agents"):
        await explaining.service.agent("nobody")
