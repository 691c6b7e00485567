"""What the ledger says of tasks after each thing that can happen to them, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio

from controlplane.agents.rules import Presence, PresenceReason
from controlplane.errors import InvalidArgument, NotFound
from controlplane.storage.location import Location
from controlplane.tasks.ledger import service as ledger_service
from controlplane.tasks.ledger.events import Choice, DeliveryEvent, EventRecord, event_row
from controlplane.tasks.ledger.observing import Observations, Observe
from controlplane.tasks.ledger.service import EventPage, LedgerService
from controlplane.tasks.operations import Finish
from controlplane.tasks.records import Chosen
from controlplane.tasks.rules import OfflinePolicy, Outcome, TaskState
from controlplane.tasks.store import ledger as store
from tests.contracts.agents_world import OPERATOR, SECRET
from tests.contracts.tasks_world import TasksWorld, new_task, open_tasks_world

DAY = 86_400
KEPT = timedelta(days=7)


@dataclass
class Ledger:
    """The room with its ledger."""

    work: TasksWorld
    service: LedgerService
    observations: Observations

    async def page(
        self,
        task_id: str = "",
        agent_id: str = "",
        *,
        chosen: str = "",
        start: int | None = None,
        end: int | None = None,
        size: int = 1_000,
        token: str = "",
    ) -> EventPage:
        return await self.service.list(Choice(task_id, agent_id, start, end), chosen, size, token)

    async def events(self, task_id: str) -> list[EventRecord]:
        return list((await self.page(task_id)).events)

    async def told(self, task_id: str) -> list[tuple[str, str]]:
        """Return (event, detail) of a task."""
        return [(DeliveryEvent(one.event).name, one.detail) for one in await self.events(task_id)]

    async def names(self, task_id: str) -> list[str]:
        return [name for name, _ in await self.told(task_id)]


@pytest_asyncio.fixture
async def ledger(location: Location) -> AsyncIterator[Ledger]:
    async with open_tasks_world(location) as work:
        world = work.world
        observations = Observations(world.writer, lambda: work.now, lambda count: None)
        yield Ledger(work, LedgerService(world.database, world.agents, SECRET), observations)


async def test_a_task_that_succeeds_has_each_step_once(ledger: Ledger) -> None:
    work = ledger.work
    created, task_id = work.now, await work.create()
    work.advance(1)
    leased = work.now
    (assigned,) = await work.lease(epoch=4)
    work.advance(1)
    journaled = work.now
    await work.accept(assigned.attempt_id)
    await work.accept(assigned.attempt_id)
    work.advance(1)
    committed = work.now
    await work.finish(assigned.attempt_id)
    await work.finish(assigned.attempt_id)
    events = await ledger.events(task_id)
    assert [
        (one.event, one.time, one.attempt_id, one.session_epoch, one.detail, one.agent_id) for one in events
    ] == [
        (DeliveryEvent.CREATED, created, None, None, "", "a1"),
        (DeliveryEvent.LEASED, leased, assigned.attempt_id, 4, "attempt 1", "a1"),
        (DeliveryEvent.JOURNALED, journaled, assigned.attempt_id, None, "", "a1"),
        (DeliveryEvent.COMMITTED, committed, assigned.attempt_id, None, "SUCCEEDED: succeeded", "a1"),
    ]


async def test_a_task_that_fails_until_it_is_dead_says_what_each_result_made_of_it(ledger: Ledger) -> None:
    work = ledger.work
    task_id, attempt_id = await work.begin(attempts=2)
    await work.finish(attempt_id, Outcome.FAILED)
    second = await work.again()
    await work.accept(second)
    await work.finish(second, Outcome.FAILED)
    assert (await ledger.told(task_id))[3:] == [
        ("COMMITTED", "tried again: failed"),
        ("RETRIED", "an attempt failed and may be tried again"),
        ("LEASED", "attempt 2"),
        ("JOURNALED", ""),
        ("COMMITTED", "DEAD: failed"),
    ]
    assert {one.attempt_id for one in (await ledger.events(task_id))[5:]} == {second}


async def test_a_lease_that_lapses_is_told_and_the_late_result_too(ledger: Ledger) -> None:
    work = ledger.work
    task_id = await work.create()
    (first,) = await work.lease()
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    (second,) = await work.lease(epoch=2)
    work.advance(1)
    await work.finish(first.attempt_id)
    assert await ledger.told(task_id) == [
        ("CREATED", ""),
        ("LEASED", "attempt 1"),
        ("LAPSED", "the agent left before it took it"),
        ("LEASED", "attempt 2"),
        ("COMMITTED", "SUCCEEDED: succeeded"),
        ("LAPSED", "another attempt decided the task"),
    ]
    assert (await ledger.events(task_id))[-1].attempt_id == second.attempt_id


async def test_an_earlier_attempt_that_the_agent_has_ends_the_later_lease(ledger: Ledger) -> None:
    work = ledger.work
    task_id = await work.create()
    (first,) = await work.lease()
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    (second,) = await work.lease(epoch=2)
    await work.create()
    await work.lease(epoch=2)
    work.advance(1)
    await work.adopt({first.attempt_id: False}, epoch=2)
    events = await ledger.events(task_id)
    assert {(one.event, one.attempt_id, one.session_epoch, one.detail) for one in events[4:]} == {
        (
            DeliveryEvent.LAPSED,
            second.attempt_id,
            2,
            "the agent has an earlier attempt in its journal",
        ),
        (DeliveryEvent.JOURNALED, first.attempt_id, None, ""),
    }


async def test_a_result_that_came_too_late_is_kept_beside_its_attempt(ledger: Ledger) -> None:
    work = ledger.work
    task_id, attempt_id = await work.begin(limit=600)
    work.advance(661)
    await work.sweep.run()
    work.advance(1)
    await work.finish(attempt_id)
    assert (await ledger.told(task_id))[3:] == [
        ("ABANDONED", "timed out: no result arrived within the run limit"),
        ("ENDED", "FAILED: timed out: no result arrived within the run limit"),
        ("COMMITTED", "kept beside the attempt: the task is final, or went on without it"),
    ]


async def test_a_lost_journal_is_told(ledger: Ledger) -> None:
    work = ledger.work
    again, _ = await work.begin(idempotent=True)
    once, _ = await work.begin()
    work.advance(1)
    await work.lose_journal()
    reason = "the agent came back without its journal; whether the work had an effect is not known"
    assert (await ledger.told(again))[3:] == [
        ("ABANDONED", reason),
        ("RETRIED", "an attempt of an idempotent task was interrupted: it is run again"),
    ]
    assert (await ledger.told(once))[3:] == [("ABANDONED", reason), ("ENDED", f"INTERRUPTED: {reason}")]


async def test_a_queued_task_that_is_cancelled_ends_at_once(ledger: Ledger) -> None:
    work = ledger.work
    task_id = await work.create()
    work.advance(1)
    await work.tasks.cancel(OPERATOR, task_id)
    await work.tasks.cancel(OPERATOR, task_id)
    assert (await ledger.told(task_id))[1:] == [
        ("ENDED", f"CANCELLED: cancelled by {OPERATOR.spiffe_id}"),
    ]


async def test_a_request_to_cancel_is_told_and_how_it_ended(ledger: Ledger) -> None:
    work = ledger.work
    running, attempt_id = await work.begin()
    untaken = await work.create()
    await work.lease()
    work.advance(1)
    for task_id in (running, untaken):
        await work.tasks.cancel(OPERATOR, task_id)
    work.advance(1)
    await work.finish(attempt_id, Outcome.CANCELLED)
    work.advance(1)
    await work.adopt({}, epoch=2)
    asked = ("CANCEL_REQUESTED", f"cancelled by {OPERATOR.spiffe_id}")
    assert (await ledger.told(running))[3:] == [asked, ("COMMITTED", "CANCELLED: cancelled")]
    assert (await ledger.told(untaken))[2:] == [
        asked,
        ("LAPSED", "cancelled before the agent took it"),
        ("ENDED", "CANCELLED: cancelled before the agent took it"),
    ]


async def test_what_was_not_begun_in_time_is_told_with_the_attempt_that_it_had(ledger: Ledger) -> None:
    work = ledger.work
    waiting = await work.create("a2", queue=10)
    handed = await work.create(queue=10)
    (assigned,) = await work.lease()
    work.advance(11)
    await work.sweep.run()
    for task_id, attempt_id in ((waiting, None), (handed, assigned.attempt_id)):
        last = (await ledger.events(task_id))[-1]
        assert (last.event, last.attempt_id) == (DeliveryEvent.EXPIRED, attempt_id)
        assert last.detail == "expired: its agent did not take it in time"


async def test_the_tasks_of_a_deleted_agent_are_told_to_have_ended(ledger: Ledger) -> None:
    work = ledger.work
    queued = await work.create("a2")
    running, _ = await work.begin()
    work.advance(1)
    await work.world.agents.delete("a1", etag="", caller=OPERATOR)
    assert await ledger.names(queued) == ["CREATED"]
    assert (await ledger.told(running))[-1] == ("ENDED", "CANCELLED: its agent was deleted")
    assert [one.task_id for one in (await ledger.page(agent_id="a1")).events] == [running] * 4


async def test_a_batch_has_an_event_for_each_of_its_tasks(ledger: Ledger) -> None:
    work = ledger.work
    batches = [
        await work.tasks.batches.create(OPERATOR, Chosen("*"), new_task(), "", allow_empty=False)
        for _ in range(2)
    ]
    for batch in batches:
        for agent_id in ("a1", "a2"):
            (event,) = await ledger.events(f"{batch.batch_id}.{agent_id}")
            assert (event.event, event.agent_id, event.time) == (DeliveryEvent.CREATED, agent_id, work.now)


@pytest.mark.parametrize(
    ("state", "event", "detail"),
    [
        (TaskState.EXPIRED, DeliveryEvent.EXPIRED, "why"),
        (TaskState.SKIPPED, DeliveryEvent.SKIPPED, "why"),
        (TaskState.SUPERSEDED, DeliveryEvent.SUPERSEDED, "why"),
        (TaskState.CANCELLED, DeliveryEvent.ENDED, "CANCELLED: why"),
    ],
)
async def test_an_end_without_a_result_is_told_by_its_state(
    state: TaskState, event: DeliveryEvent, detail: str, ledger: Ledger
) -> None:
    task_id = await ledger.work.create()
    async with ledger.work.world.database.unit_of_work() as unit:
        await store.insert_ended(unit, [task_id], state, "why", ledger.work.now + 1)
    last = (await ledger.events(task_id))[-1]
    assert (last.event, last.detail) == (event, detail)


async def test_an_operation_that_fails_alone_leaves_no_event(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = ledger.work
    tasks = [await work.create() for _ in range(3)]
    attempts = {one.task_id: one.attempt_id for one in await work.lease()}
    for attempt_id in attempts.values():
        await work.accept(attempt_id)
    bad = attempts[tasks[1]]
    # An applier that fails after it has noted events: the group is rolled back and tried one by one.
    results = work.world.writer._appliers[Finish]

    async def fail(unit: object, operations: list[Finish]) -> object:
        found = await results(unit, operations)  # type: ignore[arg-type]  # only passed on
        if any(operation.attempt_id == bad for operation in operations):
            raise KeyError("of the test")
        return found

    monkeypatch.setitem(work.world.writer._appliers, Finish, fail)
    finishes = [work.finishing(attempts[task_id]) for task_id in tasks]
    ended = await asyncio.gather(*map(work.finished, finishes), return_exceptions=True)
    assert [isinstance(one, KeyError) for one in ended] == [False, True, False]
    assert [(await ledger.names(task_id)).count("COMMITTED") for task_id in tasks] == [1, 0, 1]


async def test_observations_stand_among_the_state_events_by_their_time(ledger: Ledger) -> None:
    work = ledger.work
    task_id = await work.create()
    work.advance(1)
    (assigned,) = await work.lease()
    work.advance(1)
    sent = work.now
    ledger.observations.note(DeliveryEvent.SENT, task_id, assigned.attempt_id, "a1", 1, sent, "attempt 1")
    work.advance(1)
    await work.accept(assigned.attempt_id)
    assert await ledger.names(task_id) == ["CREATED", "LEASED", "JOURNALED"]
    await ledger.observations.flush()
    assert await ledger.names(task_id) == ["CREATED", "LEASED", "SENT", "JOURNALED"]
    found = (await ledger.events(task_id))[2]
    assert (found.time, found.session_epoch, found.detail) == (sent, 1, "attempt 1")


async def test_a_page_says_how_many_observations_were_dropped_in_the_time_asked_for(ledger: Ledger) -> None:
    work, begin = ledger.work, ledger.work.now
    await work.create()
    for count in ("3", "40"):
        marker = event_row(DeliveryEvent.OBSERVATIONS_LOST, "", None, "", work.now, None, count)
        await work.world.writer.submit(Observe([marker]))
        work.advance(10)
    assert (await ledger.page()).lost == 43
    assert (await ledger.page(agent_id="a1")).lost == 43
    assert (await ledger.page(start=begin + 1)).lost == 40
    first = await ledger.page(size=1)
    assert (await ledger.page(size=1, token=first.next_page_token)).lost == 0


async def test_pages_have_every_event_once_and_in_order(ledger: Ledger) -> None:
    work = ledger.work
    for number in range(9):
        await work.create(("a1", "a2")[number % 2])
        work.advance(number % 3)  # some at the same instant
    for agent_id, count in (("", 9), ("a1", 5), ("a2", 4)):
        whole = [one.event_id for one in (await ledger.page(agent_id=agent_id)).events]
        assert len(whole) == count
        for size in (1, 2, 4):
            found: list[int] = []
            token = ""
            while True:
                page = await ledger.page(agent_id=agent_id, size=size, token=token)
                assert len(page.events) <= size
                found += [one.event_id for one in page.events]
                token = page.next_page_token
                if not token:
                    break
            assert found == whole


async def test_events_are_chosen_by_time_and_filter(ledger: Ledger) -> None:
    work, begin = ledger.work, ledger.work.now
    task_id, attempt_id = await work.begin()
    work.advance(10)
    await work.finish(attempt_id, Outcome.FAILED)
    end = work.now
    assert [one.event for one in (await ledger.page(task_id, start=end)).events] == [DeliveryEvent.COMMITTED]
    assert [one.event for one in (await ledger.page(start=begin, end=end)).events] == [1, 2, 4]
    assert not (await ledger.page(start=end + 1)).events
    for chosen, events in {
        "event_type = COMMITTED": [6],
        "event_type = (LEASED OR DELIVERY_EVENT_TYPE_JOURNALED)": [2, 4],
        f"attempt_id = {attempt_id}": [2, 4, 6],
        "session_epoch = 1": [2],
        'detail = "FAILED*"': [6],
    }.items():
        assert [one.event for one in (await ledger.page(task_id, chosen=chosen)).events] == events, chosen


async def test_bad_questions_are_refused_by_the_field(ledger: Ledger) -> None:
    task_id = await ledger.work.create()
    await ledger.work.create()
    token = (await ledger.page(size=1)).next_page_token
    with pytest.raises(NotFound, match="task: there is no tasks/nothing"):
        await ledger.page("nothing")
    with pytest.raises(NotFound, match="agent: there is no agents/nobody"):
        await ledger.page(agent_id="nobody")
    with pytest.raises(InvalidArgument, match="end_time: lies before"):
        await ledger.page(task_id, start=5, end=4)
    with pytest.raises(InvalidArgument, match="unknown field"):
        await ledger.page(chosen="priority = 4")
    with pytest.raises(InvalidArgument, match="page_token"):
        await ledger.page(agent_id="a1", token=token)
    assert not (await ledger.page(agent_id="a2")).events


async def test_events_go_when_their_time_is_over_and_outlive_their_task(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_service, "PRUNE_STEP", 4)
    work = ledger.work
    old = [await work.create() for _ in range(9)]
    for task_id in old:
        await work.tasks.cancel(OPERATOR, task_id)
    work.advance(6 * DAY)
    young = await work.create()
    await work.tasks.prune(work.world.clock.now())
    assert await ledger.names(old[0]) == ["CREATED", "ENDED"]
    assert await ledger.service.prune(work.world.clock.now() - KEPT) == 0
    work.advance(DAY + 1)
    assert await ledger.service.prune(work.world.clock.now() - KEPT) == 18
    assert [one.task_id for one in (await ledger.page()).events] == [young]
    with pytest.raises(NotFound):
        await ledger.page(old[0])


async def test_an_agent_is_asked_about_a_task_that_waited_longer_than_events_are_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_service, "PRUNE_STEP", 2)
    work = ledger.work
    waiting = [await work.create() for _ in range(3)]
    work.advance(8 * DAY)
    assert await ledger.service.prune(work.world.clock.now() - KEPT) == 0
    for task_id in waiting:
        await work.tasks.cancel(OPERATOR, task_id)
    found = [(one.task_id, one.event) for one in (await ledger.page(agent_id="a1")).events]
    assert sorted(found) == sorted(
        (task_id, int(event)) for task_id in waiting for event in (DeliveryEvent.CREATED, DeliveryEvent.ENDED)
    )
    # Nothing of them is young enough any more, and what told that they were created goes with the rest.
    work.advance(8 * DAY)
    assert await ledger.service.prune(work.world.clock.now() - KEPT) == 6
    assert not (await ledger.page(agent_id="a1")).events


async def test_who_writes_comes_in_between_two_slices(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_service, "PRUNE_STEP", 1)
    work = ledger.work
    for _ in range(20):
        await work.tasks.cancel(OPERATOR, await work.create())
    work.advance(8 * DAY)
    pruning = asyncio.create_task(ledger.service.prune(work.world.clock.now() - KEPT))
    await work.world.report("a2", 1, Presence.STALE, PresenceReason.STREAM_LOST)
    assert not pruning.done()
    assert await pruning == 40


async def test_tasks_of_each_policy_are_told_of_when_they_are_made_and_ended(ledger: Ledger) -> None:
    work = ledger.work
    await work.leave("a2")
    skipped = await work.create("a2", offline=OfflinePolicy.SKIP)
    assert [name for name, _ in await ledger.told(skipped)] == ["CREATED", "SKIPPED"]
    first = await work.create("a1", offline=OfflinePolicy.LATEST, key="k")
    second = await work.create("a1", offline=OfflinePolicy.LATEST, key="k")
    assert (await ledger.names(first), await ledger.names(second)) == (["CREATED", "SUPERSEDED"], ["CREATED"])


async def test_a_cancelled_batch_and_its_replay_are_told_of(ledger: Ledger) -> None:
    work = ledger.work
    batch = await work.tasks.batches.create(OPERATOR, Chosen("*"), new_task(), "", allow_empty=False)
    (assigned,) = await work.lease("a1")
    await work.tasks.batches.cancel(OPERATOR, batch.batch_id)
    assert await ledger.names(assigned.task_id) == ["CREATED", "LEASED", "CANCEL_REQUESTED"]
    ended = f"{batch.batch_id}.a2"
    assert (await ledger.told(ended))[-1][0] == "ENDED"
    replay = await work.tasks.replays.replay(OPERATOR, ended, "")
    assert (await ledger.names(ended))[-1] == "REPLAYED"
    assert await ledger.names(replay) == ["CREATED"]
