"""Explanations of tasks with an offline policy, from what is really stored; the sweep proves them right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from controlplane.errors import FailedPrecondition
from controlplane.storage.location import Location
from controlplane.tasks import windows
from controlplane.tasks.explaining.rules import Code
from controlplane.tasks.records import Window
from controlplane.tasks.rules import OfflinePolicy, Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.explaining_world import Explaining, open_explaining
from tests.contracts.tasks_world import HOUR, LATEST, SECOND, SKIP, WINDOW, TasksWorld, stale

NAMED = "maintenance window, '0 22 * * *' in UTC,"


@pytest_asyncio.fixture
async def explaining(location: Location) -> AsyncIterator[Explaining]:
    async with open_explaining(location) as opened:
        yield opened


def clock(work: TasksWorld, text: str) -> None:
    work.world.clock.time = datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- queue


async def test_a_task_that_queues_waits_for_an_agent_that_is_offline(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create(offline=OfflinePolicy.QUEUE)
    await work.leave()
    assert await explaining.codes(task_id) == ([Code.AGENT_OFFLINE], [Code.SENT_ON_RETURN, Code.EXPIRES])
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.QUEUED


# --- skip


async def test_a_task_that_skips_ends_once_an_agent_that_is_stale_is_offline(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create(**SKIP)
    assert await explaining.codes(task_id) == (
        [Code.NEXT_IN_QUEUE],
        [Code.SENT_SOON, Code.SKIPPED, Code.EXPIRES],
    )
    await stale(work)
    await work.sweep.run()
    assert await explaining.codes(task_id) == (
        [Code.AGENT_STALE, Code.SKIPS_OFFLINE],
        [Code.SENT_ON_RETURN, Code.SKIPPED, Code.EXPIRES],
    )
    said = await explaining.step(task_id, Code.SKIPPED)
    assert said.startswith("Without a sign of life agents/a1 is OFFLINE at 2024-05-01 12:")
    assert said.endswith("and it ends as SKIPPED.")
    agent = (await explaining.service.agent("a1")).explanation
    assert "1 task that does not wait for it ends as SKIPPED then." in [one.text for one in agent.next_steps]
    await work.leave()
    assert await explaining.codes(task_id) == ([Code.AGENT_OFFLINE, Code.SKIPS_OFFLINE], [Code.SKIPPED])
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.SKIPPED
    assert await explaining.text(task_id, Code.DECIDED_BY_SERVER) == (
        "No result decided: skipped: its agent went offline before it took it."
    )
    assert f"tasks replay tasks/{task_id}" in await explaining.commands(task_id)


async def test_what_a_task_that_skips_was_handed_ends_with_the_lease(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create(**SKIP)
    await work.lease()
    await work.leave()
    said = await explaining.step(task_id, Code.SKIPPED)
    assert said.endswith("it ends as SKIPPED, unless the agent takes it.")
    work.advance(61)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.SKIPPED


async def test_a_lease_stays_while_its_agent_is_stale(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create()
    await work.lease()
    await stale(work)
    work.advance(61)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.LEASED
    assert await explaining.codes(task_id) == (
        [Code.HANDED_OUT, Code.AGENT_STALE, Code.LEASE_HELD],
        [Code.JOURNALED, Code.LEASE_LAPSES, Code.EXPIRES],
    )
    await work.leave()
    assert await explaining.step(task_id, Code.LEASE_LAPSES) == (
        "The lease is over: by the next sweep, within seconds, it is queued again."
    )
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.QUEUED


# --- latest


async def test_a_running_task_that_a_later_one_followed_ends_instead_of_being_tried_again(
    explaining: Explaining,
) -> None:
    work = explaining.work
    task_id, _ = await work.begin(attempts=3, idempotent=True, limit=600, **LATEST)
    assert (await explaining.step(task_id, Code.RUN_DEADLINE)).endswith("it is tried again.")
    work.advance(1)
    later = await work.create(**LATEST)
    assert await explaining.codes(later) == (
        [Code.AGENT_BUSY],
        [Code.SENT_SOON, Code.SUPERSEDED, Code.EXPIRES],
    )
    assert await explaining.codes(task_id) == (
        [Code.JOURNALED, Code.LATER_OF_KEY],
        [Code.RESULT_DECIDES, Code.SUPERSEDED],
    )
    assert (await explaining.step(task_id, Code.SUPERSEDED)).endswith("it ends as SUPERSEDED.")
    work.advance(660)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.SUPERSEDED
    assert await explaining.codes(task_id) == ([Code.DECIDED_BY_SERVER, Code.LATER_OF_KEY], [Code.FINAL])
    assert await explaining.commands(task_id) == [
        f"tasks output tasks/{task_id}",
        "tasks list --agent a1 --filter 'supersede_key = \"sshd\"'",
        f"tasks events tasks/{task_id}",
    ]
    page = await work.tasks.list_tasks('supersede_key = "sshd"', 0, "")
    assert {task.task_id for task in page.tasks} == {task_id, later}


async def test_a_leased_task_that_a_later_one_followed_ends_with_its_lease(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create(**LATEST)
    await work.lease()
    await work.create(**LATEST)
    await work.leave()
    assert await explaining.codes(task_id) == (
        [Code.HANDED_OUT, Code.LATER_OF_KEY, Code.AGENT_OFFLINE],
        [Code.SUPERSEDED, Code.EXPIRES],
    )
    work.advance(61)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.SUPERSEDED


# --- window


async def test_a_closed_window_is_named_with_its_opening_and_the_one_after_it(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await work.create(**WINDOW)
    assert await explaining.codes(task_id) == (
        [Code.WAITS_FOR_WINDOW],
        [Code.SENT_SOON, Code.NEXT_WINDOW, Code.EXPIRES],
    )
    assert await explaining.text(task_id, Code.WAITS_FOR_WINDOW) == (
        f"It waits for its {NAMED} which opens at 2024-05-01 22:00:00Z (in 10 h)."
    )
    await work.leave()
    assert await explaining.step(task_id, Code.SENT_ON_RETURN) == (
        "It is sent when agents/a1 comes back, from 2024-05-01 22:00:00Z (in 10 h) until "
        "2024-05-02 00:00:00Z (in 12 h)."
    )
    assert await explaining.step(task_id, Code.NEXT_WINDOW) == (
        "Unless it is sent by 2024-05-02 00:00:00Z (in 12 h), it waits for its next window, from "
        "2024-05-02 22:00:00Z (in 1 d 10 h) until 2024-05-03 00:00:00Z (in 1 d 12 h)."
    )


async def test_an_open_window_is_said_to_close(explaining: Explaining) -> None:
    work = explaining.work
    clock(work, "2024-05-01T23:30:00")
    task_id = await work.create(**WINDOW)
    assert await explaining.codes(task_id) == (
        [Code.WINDOW_OPEN, Code.NEXT_IN_QUEUE],
        [Code.SENT_SOON, Code.NEXT_WINDOW, Code.EXPIRES],
    )
    await work.leave()
    assert await explaining.codes(task_id) == (
        [Code.AGENT_OFFLINE, Code.WINDOW_OPEN],
        [Code.SENT_ON_RETURN, Code.NEXT_WINDOW, Code.EXPIRES],
    )
    assert await explaining.step(task_id, Code.SENT_ON_RETURN) == (
        "It is sent when agents/a1 comes back, until 2024-05-02 00:00:00Z (in 30 min)."
    )
    promised = await explaining.step(task_id, Code.NEXT_WINDOW)
    assert "from 2024-05-02 22:00:00Z (in 22 h 30 min) until" in promised
    clock(work, "2024-05-02T00:00:00")
    await work.sweep.run()
    moved = (await work.get(task_id)).due
    assert datetime.fromtimestamp(moved.not_before / SECOND, UTC).isoformat() == "2024-05-02T22:00:00+00:00"


async def test_a_missed_window_keeps_a_task_from_an_agent_that_is_online(explaining: Explaining) -> None:
    work = explaining.work
    missed = await work.create(priority=9, **WINDOW)
    clock(work, "2024-05-02T00:00:00")
    other = await work.create()
    assert await explaining.codes(missed) == (
        [Code.WINDOW_CLOSED],
        [Code.NEXT_WINDOW, Code.SENT_SOON, Code.EXPIRES],
    )
    # What missed its window goes before nothing.
    assert (await explaining.codes(other))[0] == [Code.NEXT_IN_QUEUE]
    await work.sweep.run()
    assert (await explaining.codes(missed))[0] == [Code.WAITS_FOR_WINDOW]


async def test_a_retry_that_misses_its_window_waits_for_the_next_one(explaining: Explaining) -> None:
    work = explaining.work
    clock(work, "2024-05-01T23:59:58")
    task_id, attempt_id = await work.begin(attempts=3, **WINDOW)
    await work.finish(attempt_id, Outcome.FAILED)
    assert await explaining.codes(task_id) == (
        [Code.WINDOW_OPEN, Code.RETRY_WAITS, Code.LAST_ATTEMPT],
        [Code.NEXT_WINDOW, Code.SENT_SOON, Code.EXPIRES],
    )
    clock(work, "2024-05-02T00:00:04")
    await work.sweep.run()
    assert (await explaining.codes(task_id))[0] == [Code.WAITS_FOR_WINDOW, Code.LAST_ATTEMPT]
    assert await explaining.text(task_id, Code.WAITS_FOR_WINDOW) == (
        f"Attempt 2 waits for its {NAMED} which opens at 2024-05-02 22:00:00Z (in 21 h 59 min)."
    )


async def test_a_task_whose_next_window_comes_too_late_expires(explaining: Explaining) -> None:
    work = explaining.work
    clock(work, "2024-05-01T22:30:00")
    task_id = await work.create(**{**WINDOW, "queue": 20 * HOUR})
    await work.leave()
    assert await explaining.step(task_id, Code.NEXT_WINDOW) == (
        "Unless it is sent by 2024-05-02 00:00:00Z (in 1 h 30 min), it expires: its next window opens only "
        "at 2024-05-02 22:00:00Z (in 23 h 30 min)."
    )
    clock(work, "2024-05-02T00:00:00")
    await work.sweep.run()
    assert Code.SENT_ON_RETURN not in (await explaining.codes(task_id))[1]
    clock(work, "2024-05-02T18:30:00")
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.EXPIRED


async def test_a_replay_with_a_window_is_said_to_be_given_one(explaining: Explaining) -> None:
    work = explaining.work
    old = await work.create(**WINDOW)
    await work.tasks.cancel(OPERATOR, old)
    work.advance(1)
    new = await work.tasks.replays.replay(OPERATOR, old, "")
    assert await explaining.codes(new) == (
        [Code.WINDOW_CLOSED],
        [Code.NEXT_WINDOW, Code.SENT_SOON, Code.EXPIRES],
    )
    assert "from 2024-05-01 22:00:00Z (in 9 h 59 min)" in await explaining.step(new, Code.SENT_SOON)


async def test_a_window_that_can_no_longer_be_read_is_said_to_be(
    explaining: Explaining, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = explaining.work
    task_id = await work.create(**WINDOW)

    def unreadable(window: Window, now: int) -> None:
        raise windows.WindowInvalid("time_zone", "there is no such time zone")

    monkeypatch.setattr(windows, "check", unreadable)
    clock(work, "2024-05-02T00:00:00")
    for _ in range(2):
        assert await explaining.codes(task_id) == ([Code.WINDOW_CLOSED], [Code.NEXT_WINDOW, Code.EXPIRES])
        await work.sweep.run()


# --- replay


async def dead(work: TasksWorld, **options: Any) -> str:
    """Return the id of a task that failed as often as it may."""
    task_id, attempt_id = await work.begin(attempts=2, **options)
    await work.finish(attempt_id, Outcome.FAILED)
    await work.finish(await work.again(), Outcome.FAILED)
    assert await work.state(task_id) is TaskState.DEAD
    return task_id


async def test_a_replay_is_advised_of_a_dead_task_until_it_was_replayed(explaining: Explaining) -> None:
    work = explaining.work
    task_id = await dead(work)
    assert f"tasks replay tasks/{task_id}" in await explaining.commands(task_id)
    new = await work.tasks.replays.replay(OPERATOR, task_id, "")
    assert await explaining.text(task_id, Code.REPLAYED) == f"It was done anew as tasks/{new}."
    commands = await explaining.commands(task_id)
    assert f"explain task tasks/{new}" in commands
    assert f"tasks replay tasks/{task_id}" not in commands


async def test_no_replay_is_advised_of_what_a_later_task_of_its_key_followed(
    explaining: Explaining,
) -> None:
    work = explaining.work
    task_id = await dead(work, **LATEST)
    assert f"tasks replay tasks/{task_id}" in await explaining.commands(task_id)
    await work.create(**LATEST)
    assert f"tasks replay tasks/{task_id}" not in await explaining.commands(task_id)
    with pytest.raises(FailedPrecondition):
        await work.tasks.replays.replay(OPERATOR, task_id, "")
