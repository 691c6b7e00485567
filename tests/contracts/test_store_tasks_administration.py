"""Creating, cancelling, listing and watching tasks on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
import sqlalchemy

from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound
from controlplane.filtering import page_bytes
from controlplane.storage.location import Location
from controlplane.storage.watching import Change
from controlplane.tasks.records import Chosen, TaskRecord
from controlplane.tasks.rules import AttemptState, Outcome, TaskState
from controlplane.tasks.service import Depth
from tests.contracts.agents_world import OPERATOR
from tests.contracts.tasks_world import TasksWorld, new_task, open_tasks_world

OTHER = replace(OPERATOR, name="bob", spiffe_id="spiffe://fleetwright.local/operator/bob")


@pytest_asyncio.fixture
async def work(location: Location) -> AsyncIterator[TasksWorld]:
    async with open_tasks_world(location) as opened:
        yield opened


# --- creation


async def test_a_task_is_created_queued_and_its_agent_woken(work: TasksWorld) -> None:
    task = await work.tasks.create(OPERATOR, "a1", new_task(priority=4, queue=60, spec=b"spec"), "")
    assert (task.state, task.agent_id, task.spec) == (TaskState.QUEUED, "a1", b"spec")
    assert (task.create_time, task.expire_time) == (work.now, work.now + 60_000_000)
    assert (task.creator, task.batch_id, task.result) == (OPERATOR.spiffe_id, None, None)
    assert work.woken == ["a1"]
    assert await work.tasks.get(task.task_id) == task


async def test_a_task_for_an_unknown_agent_is_refused_and_nothing_is_kept(work: TasksWorld) -> None:
    with pytest.raises(NotFound) as refused:
        await work.create("nobody", request_id="r")
    assert refused.value.reason == "AGENT_UNKNOWN"
    assert refused.value.message.startswith("agent: there is no agents/nobody; ")
    assert await work.rows("SELECT * FROM tasks") == []
    assert await work.rows("SELECT * FROM task_requests") == []
    assert work.woken == []


async def test_the_same_request_gives_the_first_answer(work: TasksWorld) -> None:
    first = await work.create(request_id="r")
    work.advance(60)
    assert await work.create(request_id="r") == first
    assert await work.create() != await work.create()
    task = await work.tasks.create(OTHER, "a1", new_task(), "r")
    assert task.task_id != first


async def test_the_same_request_many_times_at_once_makes_one_task(work: TasksWorld) -> None:
    made = await asyncio.gather(*(work.create(request_id="r") for _ in range(8)))
    assert len(set(made)) == 1
    assert len(await work.rows("SELECT * FROM tasks")) == 1
    assert work.woken == ["a1"]


@pytest.mark.parametrize("change", ["agent", "spec", "options", "batch"])
async def test_a_request_id_with_another_content_is_refused(work: TasksWorld, change: str) -> None:
    await work.create(request_id="r")
    others: dict[str, Callable[[], Awaitable[object]]] = {
        "agent": lambda: work.create("a2", request_id="r"),
        "spec": lambda: work.create(request_id="r", spec=b"other"),
        "options": lambda: work.create(request_id="r", priority=1),
        "batch": lambda: work.tasks.batches.create(OPERATOR, Chosen("*"), new_task(), "r", allow_empty=False),
    }
    with pytest.raises(InvalidArgument) as refused:
        await others[change]()
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert [violation.field for violation in refused.value.violations] == ["request_id"]
    assert len(await work.rows("SELECT * FROM tasks")) == 1


async def test_a_batch_makes_a_task_for_each_agent_that_matches(work: TasksWorld) -> None:
    await work.world.enrol("b1", {"site": "oslo"})
    await work.world.enrol("b2", {"site": "oslo"})
    await work.world.enrol("b3", {"site": "oslo"})
    await work.world.agents.delete("b3", etag="", caller=OPERATOR)
    batch = await work.tasks.batches.create(
        OPERATOR, Chosen("labels.site = oslo"), new_task(priority=2, spec=b"s"), "r", allow_empty=False
    )
    assert (batch.task_count, batch.chosen.selector) == (2, "labels.site = oslo")
    assert sorted(work.woken) == ["b1", "b2"]
    page = await work.tasks.list_tasks(f'batch_id = "{batch.batch_id}"', 0, "")
    assert {task.agent_id for task in page.tasks} == {"b1", "b2"}
    assert {(task.options.priority, task.spec) for task in page.tasks} == {(2, b"s")}
    assert await work.lease("b1")
    again, counts = await work.tasks.batches.get(batch.batch_id)
    assert again == batch
    assert counts == [(TaskState.QUEUED, 1), (TaskState.LEASED, 1)]
    same = await work.tasks.batches.create(
        OPERATOR, Chosen("labels.site = oslo"), new_task(priority=2, spec=b"s"), "r", allow_empty=False
    )
    assert same == batch


async def database_bytes(work: TasksWorld) -> int:
    if work.world.database.dialect == "sqlite":
        asked = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    else:
        asked = "SELECT pg_total_relation_size('tasks') + pg_total_relation_size('task_batches')"
    return int((await work.rows(asked))[0][0])


async def test_a_batch_keeps_its_spec_once_and_each_task_shows_it(work: TasksWorld) -> None:
    for number in range(40):
        await work.world.enrol(f"b{number}", {"site": "oslo"})
    spec, before = bytes(range(256)) * 1024, await database_bytes(work)
    batch = await work.tasks.batches.create(
        OPERATOR, Chosen("labels.site = oslo"), new_task(spec=spec), "", allow_empty=False
    )
    assert batch.task_count == 40
    ((kept,),) = await work.rows("SELECT COUNT(spec) FROM tasks")
    assert kept == 0
    assert await database_bytes(work) - before < 4 * len(spec)

    (assigned,) = await work.lease("b7")
    assert assigned.spec == spec
    _, (resent,) = await work.adopt({}, "b7")
    assert (resent.attempt_id, resent.spec) == (assigned.attempt_id, spec)
    assert (await work.get(assigned.task_id)).spec == spec
    page = await work.tasks.list_tasks(f'batch_id = "{batch.batch_id}"', 5, "")
    assert page.tasks
    assert {task.spec for task in page.tasks} == {spec}
    async with aclosing(work.tasks.watch(f'batch_id = "{batch.batch_id}"', "")) as changes:
        _, watched, _ = await anext(changes)
    assert watched is not None
    assert watched.spec == spec


async def test_a_task_of_a_batch_that_has_a_spec_of_its_own_shows_that(work: TasksWorld) -> None:
    """So were they kept before schema 0004."""
    await work.tasks.batches.create(OPERATOR, Chosen("*"), new_task(spec=b"batch"), "", allow_empty=False)
    async with work.world.database.unit_of_work() as unit:
        own = sqlalchemy.text("UPDATE tasks SET spec = :spec WHERE agent_id = 'a1'")
        await unit.connection.execute(own, {"spec": b""})
    assert [assigned.spec for assigned in await work.lease("a1")] == [b""]
    assert [assigned.spec for assigned in await work.lease("a2")] == [b"batch"]
    page = await work.tasks.list_tasks("", 0, "")
    assert {task.agent_id: task.spec for task in page.tasks} == {"a1": b"", "a2": b"batch"}


async def test_a_selector_that_matches_no_agent_is_refused_unless_allowed(work: TasksWorld) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await work.tasks.batches.create(OPERATOR, Chosen("labels.x = y"), new_task(), "r", allow_empty=False)
    assert refused.value.reason == "SELECTOR_EMPTY"
    assert refused.value.violations[0].field == "selector"
    assert await work.rows("SELECT * FROM task_batches") == []
    batch = await work.tasks.batches.create(
        OPERATOR, Chosen("labels.x = y"), new_task(), "r", allow_empty=True
    )
    assert batch.task_count == 0
    assert await work.tasks.batches.get(batch.batch_id) == (batch, [])


async def test_a_selector_out_of_form_is_refused_with_its_field(work: TasksWorld) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await work.tasks.batches.create(OPERATOR, Chosen("labels.x = "), new_task(), "", allow_empty=True)
    assert refused.value.violations[0].field == "selector"


async def test_what_does_not_exist_is_not_found(work: TasksWorld) -> None:
    for call in (work.tasks.get("x"), work.tasks.batches.get("x"), work.tasks.cancel(OPERATOR, "x")):
        with pytest.raises(NotFound) as refused:
            await call
        assert refused.value.reason == "TASK_UNKNOWN"


# --- cancellation


async def cancel(work: TasksWorld, task_id: str) -> TaskRecord:
    return await work.tasks.cancel(OPERATOR, task_id)


async def test_a_queued_task_is_cancelled_at_once(work: TasksWorld) -> None:
    task_id = await work.create()
    task = await cancel(work, task_id)
    assert task.state is TaskState.CANCELLED
    assert OPERATOR.spiffe_id in task.state_reason
    assert await work.lease() == ()
    assert work.stopping == []
    assert await cancel(work, task_id) == task


async def test_a_leased_task_that_the_agent_never_took_is_cancelled_when_it_lists_its_journal(
    work: TasksWorld,
) -> None:
    task_id = await work.create()
    (assigned,) = await work.lease()
    task = await cancel(work, task_id)
    assert (task.state, task.cancel_requested) == (TaskState.LEASED, True)
    assert work.stopping == ["a1"]
    assert await work.tasks.cancellations("a1") == [assigned.attempt_id]
    assert await work.adopt({}, epoch=2) == (set(), [])
    assert await work.state(task_id) is TaskState.CANCELLED
    (attempt,) = await work.attempts(task_id)
    assert attempt.state is AttemptState.LAPSED


async def test_a_leased_task_whose_agent_never_comes_back_is_cancelled(work: TasksWorld) -> None:
    task_id = await work.create()
    await work.lease()
    await cancel(work, task_id)
    await work.leave()
    work.advance(61)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.CANCELLED


@pytest.mark.parametrize(
    ("outcome", "idempotent", "state"),
    [
        (Outcome.CANCELLED, False, TaskState.CANCELLED),
        (Outcome.SUCCEEDED, False, TaskState.SUCCEEDED),
        (Outcome.FAILED, False, TaskState.FAILED),
        (Outcome.INTERRUPTED, False, TaskState.INTERRUPTED),
        (Outcome.INTERRUPTED, True, TaskState.CANCELLED),
    ],
)
async def test_a_running_task_that_is_to_be_cancelled_ends_as_its_agent_says(
    work: TasksWorld, outcome: Outcome, idempotent: bool, state: TaskState
) -> None:
    task_id, attempt_id = await work.begin(attempts=5, idempotent=idempotent)
    task = await cancel(work, task_id)
    assert (task.state, task.cancel_requested) == (TaskState.RUNNING, True)
    assert await cancel(work, task_id) == task
    assert work.stopping == ["a1"]
    await work.finish(attempt_id, outcome)
    assert await work.state(task_id) is state


async def test_a_running_task_whose_agent_never_comes_back_is_cancelled_at_its_deadline(
    work: TasksWorld,
) -> None:
    task_id, _ = await work.begin(limit=10)
    await cancel(work, task_id)
    work.advance(70)
    await work.sweep.run()
    assert await work.state(task_id) is TaskState.CANCELLED


async def test_a_task_that_has_ended_otherwise_can_not_be_cancelled(work: TasksWorld) -> None:
    task_id, attempt_id = await work.begin()
    await work.finish(attempt_id)
    before = await work.get(task_id)
    with pytest.raises(FailedPrecondition) as refused:
        await cancel(work, task_id)
    assert refused.value.reason == "TASK_FINAL"
    assert await work.get(task_id) == before


async def test_deleting_an_agent_cancels_what_it_had_open(work: TasksWorld) -> None:
    running, attempt_id = await work.begin()
    done, finished = await work.begin()
    await work.finish(finished)
    queued, others = await work.create(), await work.create("a2")
    assert await work.world.agents.delete("a1", etag="", caller=OPERATOR) == 2
    states = [await work.state(task_id) for task_id in (running, done, queued, others)]
    assert states == [TaskState.CANCELLED, TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.QUEUED]
    await work.world.enrol("a1")
    assert await work.adopt({attempt_id: False}, epoch=2) == ({attempt_id}, [])
    await work.finish(attempt_id)
    assert await work.state(running) is TaskState.CANCELLED


# --- lists


async def pages(work: TasksWorld, size: int, filter_text: str = "") -> AsyncIterator[list[str]]:
    token = ""
    while True:
        page = await work.tasks.list_tasks(filter_text, size, token)
        yield [task.task_id for task in page.tasks]
        token = page.next_page_token
        if not token:
            return


async def test_pages_lose_and_double_nothing_while_tasks_are_created(work: TasksWorld) -> None:
    made = []
    for place in range(23):
        work.advance(place % 3)  # some share their time
        made.append(await work.create())
    work.advance(1)
    listed: list[str] = []
    async for page in pages(work, 5):
        listed += page
        work.advance(1)
        await work.create()
    assert len(listed) == len(set(listed)) == 23
    assert set(listed) == set(made)
    assert (await work.tasks.list_tasks("", 5, "")).total == 28


async def test_a_page_of_large_tasks_ends_before_a_message_would_be_too_large(work: TasksWorld) -> None:
    large = page_bytes.PAGE_BYTES // 2 - 4_096
    made = [await work.create(spec=bytes(large)) for _ in range(5)]
    found = [page async for page in pages(work, 100)]
    assert [len(page) for page in found] == [2, 2, 1]
    assert {task_id for page in found for task_id in page} == set(made)


async def test_lists_are_filtered(work: TasksWorld) -> None:
    waiting = await work.create("a2", priority=3)
    done, attempt_id = await work.begin()
    await work.finish(attempt_id)

    async def found(filter_text: str) -> list[str]:
        return [task_id async for page in pages(work, 1, filter_text) for task_id in page]

    assert await found("state = QUEUED") == [waiting]
    assert await found("state = TASK_STATE_SUCCEEDED AND attempt_count >= 1") == [done]
    assert await found("agent_id = a2 AND priority > 2") == [waiting]
    assert await found("NOT agent_id = a2") == [done]
    assert await found("create_time < 2001-01-01T00:00:00Z") == []
    assert set(await found("kind = echo")) == {waiting, done}
    page = await work.tasks.list_tasks(f'task_id = "{done}"', 0, "")
    assert page.total == 1
    assert page.tasks[0].result == b"result"  # the summary, not the whole


async def test_a_filter_or_token_out_of_form_is_refused(work: TasksWorld) -> None:
    for _ in range(2):
        await work.create()
    with pytest.raises(InvalidArgument) as refused:
        await work.tasks.list_tasks("nonsense = 1", 0, "")
    assert refused.value.reason == "FILTER_INVALID"
    token = (await work.tasks.list_tasks("", 1, "")).next_page_token
    for filter_text, text in (("", "x"), ("state = QUEUED", token), ("", token[:-1])):
        with pytest.raises(InvalidArgument) as refused:
            await work.tasks.list_tasks(filter_text, 1, text)
        assert refused.value.reason == "PAGE_TOKEN_INVALID"


# --- watches

Changes = AsyncGenerator[tuple[Change, TaskRecord | None, str], None]


async def take(changes: Changes, count: int) -> list[tuple[Change, str]]:
    seen = []
    for _ in range(count):
        change, task, _ = await asyncio.wait_for(anext(changes), 10)
        seen.append((change, task.task_id if task else ""))
    return seen


async def test_a_watch_sends_what_is_then_what_changes_in_the_order_of_commits(work: TasksWorld) -> None:
    first, second = await work.create(priority=1), await work.create()
    async with aclosing(work.tasks.watch("", "")) as changes:
        assert await take(changes, 3) == [
            (Change.EXISTING, first),
            (Change.EXISTING, second),
            (Change.SYNCED, ""),
        ]
        (one, two) = await work.lease()
        await work.accept(two.attempt_id)
        await work.accept(one.attempt_id)
        assert await take(changes, 2) == [(Change.CHANGED, second), (Change.CHANGED, first)]


async def test_a_task_that_stops_to_match_is_removed_and_others_are_not_told_of(work: TasksWorld) -> None:
    mine = await work.create("a1")
    await work.create("a2")
    async with aclosing(work.tasks.watch("agent_id = a1 AND state = QUEUED", "")) as changes:
        assert await take(changes, 2) == [(Change.EXISTING, mine), (Change.SYNCED, "")]
        await work.lease("a2")
        await work.lease("a1")
        assert await take(changes, 1) == [(Change.REMOVED, mine)]


async def test_a_watch_goes_on_after_its_token_in_another_process(work: TasksWorld) -> None:
    first, second = await work.create(), await work.create()
    async with aclosing(work.tasks.watch("state = QUEUED", "")) as changes:
        for _ in range(3):
            *_, token = await anext(changes)
    await cancel(work, second)
    third = await work.create()
    async with aclosing(work.tasks.watch("state = QUEUED", token)) as changes:
        assert await take(changes, 2) == [(Change.REMOVED, second), (Change.CHANGED, third)]
        await cancel(work, first)
        assert await take(changes, 1) == [(Change.REMOVED, first)]


async def test_a_watch_token_of_another_filter_is_refused(work: TasksWorld) -> None:
    async with aclosing(work.tasks.watch("", "")) as changes:
        *_, token = await anext(changes)
    with pytest.raises(InvalidArgument) as refused:
        await anext(work.tasks.watch("state = QUEUED", token))
    assert refused.value.violations[0].field == "resume_token"


async def test_a_watch_sees_the_end_of_every_task_of_a_busy_room(work: TasksWorld) -> None:
    async def busy() -> set[str]:
        made = set()
        for _ in range(15):
            task_id, attempt_id = await work.begin()
            await work.finish(attempt_id)
            made.add(task_id)
        return made

    async with aclosing(work.tasks.watch("state = SUCCEEDED", "")) as changes:
        assert await take(changes, 1) == [(Change.SYNCED, "")]
        working = asyncio.create_task(busy())
        seen = {ident for _, ident in await take(changes, 15)}
        assert seen == await working


# --- depth


async def test_each_open_state_has_a_depth_and_the_age_of_its_oldest_task(work: TasksWorld) -> None:
    await work.begin()
    work.advance(60)
    await work.create()
    work.advance(5)
    await work.create()
    assert await work.tasks.depths() == {
        TaskState.QUEUED: Depth(2, timedelta(seconds=5)),
        TaskState.LEASED: Depth(0, timedelta()),
        TaskState.RUNNING: Depth(1, timedelta(seconds=65)),
    }


async def test_a_final_task_is_in_no_depth(work: TasksWorld) -> None:
    _, attempt_id = await work.begin()
    await work.finish(attempt_id)
    await work.tasks.cancel(OPERATOR, await work.create())
    assert {depth.count for depth in (await work.tasks.depths()).values()} == {0}


@pytest.mark.parametrize("kind", ["task", "batch"])
async def test_a_request_id_that_no_database_can_look_up_is_refused(work: TasksWorld, kind: str) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "task": lambda: work.create(request_id="r\0s"),
        "batch": lambda: work.tasks.batches.create(
            OPERATOR, Chosen("*"), new_task(), "r\0s", allow_empty=False
        ),
    }
    with pytest.raises(InvalidArgument, match="request_id: has a NUL character") as refused:
        await calls[kind]()
    assert refused.value.reason == "VALIDATION_FAILED"
    assert await work.rows("SELECT * FROM tasks") == []


# --- calls that share a commit


async def test_a_call_that_comes_twice_at_once_makes_one_task(work: TasksWorld) -> None:
    first, second = await asyncio.gather(work.create(request_id="r"), work.create(request_id="r"))
    assert first == second
    assert len(await work.lease()) == 1


async def test_calls_that_are_refused_leave_those_beside_them_alone(work: TasksWorld) -> None:
    answers = await asyncio.gather(
        work.create(request_id="r"),
        work.create("nobody"),
        work.create(request_id="r", priority=1),
        work.create("a2"),
        return_exceptions=True,
    )
    made, unknown, reused, other = answers
    assert isinstance(unknown, NotFound)
    assert isinstance(reused, InvalidArgument)
    assert (unknown.reason, reused.reason) == ("AGENT_UNKNOWN", "REQUEST_ID_REUSED")
    assert isinstance(made, str)
    assert isinstance(other, str)
    assert [task.task_id for task in await work.lease()] == [made]
    assert [task.task_id for task in await work.lease("a2")] == [other]


async def test_a_created_task_reads_as_it_was_answered(work: TasksWorld) -> None:
    task = await work.tasks.create(OPERATOR, "a1", new_task(priority=3, idempotent=True, attempts=2), "r")
    assert await work.get(task.task_id) == task
