"""Work from an administrator to an agent and back, over the real server."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2, telemetry_service_pb2, work_pb2

from tests.support.admin import Admin
from tests.support.agents import RawAgent, accepted, point, succeeded
from tests.support.in_process import LocalSite, serving
from tests.support.streams import PATIENCE, Stream, read, until
from tests.unit.identity.world import TurnedClock

STDOUT = work_pb2.OUTPUT_STREAM_STDOUT
State = task_service_pb2.TaskState


async def finish(tasks: Stream, assignment: pb2.Assignment) -> int:
    """Accept and finish an echo; return the disposition of the result."""
    await tasks.send(accepted=accepted(assignment.attempt_id))
    await tasks.send(finished=succeeded(assignment.attempt_id, assignment.spec.echo.payload))
    acknowledged = await tasks.expect("result_acknowledged")
    assert acknowledged.attempt_id == assignment.attempt_id
    return int(acknowledged.disposition)


async def test_a_task_is_announced_assigned_run_and_acknowledged(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    session = await agent.come()
    await session.beat()
    made = await admin.create(agent.agent_id, b"ping", request_id="first")
    assert made.state == State.TASK_STATE_QUEUED
    await session.stream.expect("work_available")

    tasks = await session.tasks()
    await tasks.expect("opened")
    assignment = await tasks.expect("assignment")
    assert (assignment.task, assignment.spec.echo.payload, assignment.number) == (made.name, b"ping", 1)
    watch = await admin.watch_tasks()
    attempt = assignment.attempt_id
    await tasks.send(accepted=accepted(attempt))
    await until(watch, lambda change: change.task.state == State.TASK_STATE_RUNNING)
    await tasks.send(progress=pb2.AttemptProgress(attempt_id=attempt, percent=40, message="half done"))
    progress = await until(watch, lambda change: change.task.progress_percent == 40)
    assert progress.task.progress_message == "half done"
    for offset, data in ((0, b"one "), (4, b"two")):
        chunk = pb2.OutputChunk(attempt_id=attempt, stream=STDOUT, offset=offset, data=data)
        await tasks.send(chunk=chunk)
    await tasks.send(finished=succeeded(attempt, b"ping", stdout_bytes=7))
    acknowledged = await tasks.expect("result_acknowledged")
    assert acknowledged.disposition == pb2.RESULT_DISPOSITION_COMMITTED
    await until(watch, lambda change: change.task.state == State.TASK_STATE_SUCCEEDED)
    watch.cancel()

    found = await admin.task(made.name)
    assert (found.state, found.result.echo.payload) == (State.TASK_STATE_SUCCEEDED, b"ping")
    assert [one.attempt_id for one in found.attempts] == [attempt]
    assert found.attempts[0].session_epoch == session.epoch
    assert await admin.output(made.name) == {STDOUT: b"one two"}
    await tasks.half_close()
    assert await tasks.ended() == (grpc.StatusCode.OK, [])
    assert (await admin.create(agent.agent_id, b"ping", request_id="first")).name == made.name


async def test_what_was_queued_offline_is_replayed_in_order_on_return(admin: Admin, agent: RawAgent) -> None:
    ordinary = [await admin.create(agent.agent_id, f"{number}".encode()) for number in range(3)]
    urgent = await admin.create(agent.agent_id, b"urgent", options=task_service_pb2.TaskOptions(priority=50))
    session = await agent.come()
    await session.stream.expect("work_available")
    tasks = await session.tasks(allowed=1)
    await tasks.expect("opened")
    order = []
    for _ in range(4):
        assignment = await tasks.expect("assignment")
        order.append(assignment.task)
        assert await finish(tasks, assignment) == pb2.RESULT_DISPOSITION_COMMITTED
        await tasks.send(credits=pb2.CreditsAdded(credits=1))
    assert order == [task.name for task in (urgent, *ordinary)]


async def test_no_more_is_assigned_than_there_are_credits(admin: Admin, agent: RawAgent) -> None:
    made = [await admin.create(agent.agent_id) for _ in range(5)]
    session = await agent.come()
    tasks = await session.tasks(allowed=2)
    await tasks.expect("opened")
    held = [await tasks.expect("assignment") for _ in range(2)]
    for assignment in held:
        assert await finish(tasks, assignment) == pb2.RESULT_DISPOSITION_COMMITTED
    # Whatever had been assigned beyond the credits would stand before these answers.
    states = [task.state for task in await admin.all_tasks()]
    assert states.count(State.TASK_STATE_QUEUED) == len(made) - 2


async def test_a_result_is_taken_on_a_later_session_and_its_attempt_is_not_sent_again(
    admin: Admin, agent: RawAgent
) -> None:
    made = await admin.create(agent.agent_id)
    first = await agent.come()
    tasks = await first.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    await agent.close()

    second = await agent.come()
    tasks = await second.tasks(journal=[(attempt, True)])
    await tasks.expect("opened")
    await tasks.send(finished=succeeded(attempt))
    acknowledged = await tasks.expect("result_acknowledged")
    assert acknowledged.disposition == pb2.RESULT_DISPOSITION_COMMITTED
    found = await admin.task(made.name)
    assert (found.state, found.attempt_count) == (State.TASK_STATE_SUCCEEDED, 1)


async def test_an_attempt_that_was_never_taken_is_sent_again_as_it_is(admin: Admin, agent: RawAgent) -> None:
    await admin.create(agent.agent_id)
    first = await agent.come()
    tasks = await first.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    await agent.close()
    second = await agent.come()
    tasks = await second.tasks()
    await tasks.expect("opened")
    assert (await tasks.expect("assignment")).attempt_id == attempt


async def test_another_journal_interrupts_what_ran(admin: Admin, agent: RawAgent) -> None:
    made = await admin.create(agent.agent_id)
    first = await agent.come()
    tasks = await first.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    watch = await admin.watch_tasks()
    await tasks.send(accepted=accepted(attempt))
    await until(watch, lambda change: change.task.state == State.TASK_STATE_RUNNING)
    watch.cancel()
    await agent.come(journal_id="journal-2")
    assert (await admin.task_ended(made.name)).state == State.TASK_STATE_INTERRUPTED


async def test_a_running_task_is_cancelled_through_its_agent(admin: Admin, agent: RawAgent) -> None:
    made = await admin.create(agent.agent_id)
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    watch = await admin.watch_tasks()
    await tasks.send(accepted=accepted(attempt))
    await until(watch, lambda change: change.task.state == State.TASK_STATE_RUNNING)
    watch.cancel()
    await admin.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=made.name))
    assert (await tasks.expect("cancel")).attempt_id == attempt
    result = work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_CANCELLED, reason="stopped")
    await tasks.send(finished=pb2.AttemptFinished(attempt_id=attempt, result=result))
    await tasks.expect("result_acknowledged")
    assert (await admin.task_ended(made.name)).state == State.TASK_STATE_CANCELLED


async def test_telemetry_is_acknowledged_stored_queried_and_watched(admin: Admin, agent: RawAgent) -> None:
    session = await agent.come()
    watch = admin.telemetry.WatchTelemetry(telemetry_service_pb2.WatchTelemetryRequest(agent=agent.name))
    assert not (await read(watch)).points
    telemetry = await session.telemetry()
    opened = await telemetry.expect("opened")
    assert opened.last_sequence == 0
    assert opened.budget >= 1000
    await telemetry.send(batch=session.batch(1, [1.0, 2.0, 3.0]))
    assert (await telemetry.expect("acknowledged")).last_sequence == 3
    # An overlap is left out, and a gap that says so is legal.
    await telemetry.send(batch=session.batch(3, [3.0, 4.0]))
    assert (await telemetry.expect("acknowledged")).last_sequence == 4
    await telemetry.send(batch=session.batch(7, [7.0], dropped=2))
    assert (await telemetry.expect("acknowledged")).last_sequence == 7
    assert [stored.point.value for stored in await admin.points(agent.agent_id)] == [1, 2, 3, 4, 7]
    watched: list[float] = []
    while len(watched) < 5:
        watched += [stored.point.value for stored in (await read(watch)).points]
    watch.cancel()
    assert watched == [1, 2, 3, 4, 7]

    await telemetry.half_close()
    assert (await telemetry.ended())[0] is grpc.StatusCode.OK
    again = await session.telemetry()
    assert (await again.expect("opened")).last_sequence == 7


async def test_telemetry_says_how_far_an_earlier_session_came(agent: RawAgent) -> None:
    epochs = []
    for first in (1, 3):
        session = await agent.come()
        telemetry = await session.telemetry()
        assert not (await telemetry.expect("opened")).HasField("previous_last_sequence")
        await telemetry.send(batch=session.batch(first, [1.0, 2.0]))
        await telemetry.expect("acknowledged")
        epochs.append(session.epoch)
    session = await agent.come()
    for previous, reached in zip(epochs, (2, 4), strict=True):
        opened = await (await session.telemetry(previous=previous)).expect("opened")
        assert (opened.last_sequence, opened.previous_last_sequence) == (4, reached)


async def test_telemetry_can_be_queried_by_metric_and_time(admin: Admin, agent: RawAgent) -> None:
    session = await agent.come()
    telemetry = await session.telemetry()
    await telemetry.expect("opened")
    batch = session.batch(1, [])
    for seconds, metric in ((100, "a.used_bytes"), (200, "a.used_bytes"), (300, "b.used_bytes")):
        made = point(float(seconds), metric)
        made.time.FromSeconds(seconds)
        batch.points.append(made)
    await telemetry.send(batch=batch)
    await telemetry.expect("acknowledged")
    request = telemetry_service_pb2.QueryTelemetryRequest(metric="a.used_bytes")
    request.start_time.FromSeconds(101)
    found = (await admin.telemetry.QueryTelemetry(request)).points
    assert [stored.point.value for stored in found] == [200.0]


async def test_a_watch_goes_on_where_an_earlier_one_ended(admin: Admin, agent: RawAgent) -> None:
    watch = admin.agents.WatchAgents(registry.WatchAgentsRequest())
    synced = await until(watch, lambda c: c.change_type == registry.CHANGE_TYPE_SYNCED)
    watch.cancel()
    await agent.come()
    request = registry.WatchAgentsRequest(resume_token=synced.resume_token)
    change = await read(admin.agents.WatchAgents(request))
    assert (change.change_type, change.agent.presence) == (
        registry.CHANGE_TYPE_CHANGED,
        registry.PRESENCE_ONLINE,
    )


async def test_a_batch_reaches_every_agent_that_its_selector_matches(site: LocalSite, admin: Admin) -> None:
    _, token = await admin.token(max_uses=3, labels={"site": "north"})
    stub = site.enrollment()
    agents = [await site.enroll(f"north-{number}", token, stub) for number in range(3)]
    request = task_service_pb2.CreateTaskBatchRequest(
        selector='labels.site = "north"', spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"all"))
    )
    batch = (await admin.tasks.CreateTaskBatch(request)).batch
    assert batch.task_count == 3
    for agent in agents:
        session = await agent.come()
        tasks = await session.tasks()
        await tasks.expect("opened")
        await finish(tasks, await tasks.expect("assignment"))
    found = await admin.tasks.GetTaskBatch(task_service_pb2.GetTaskBatchRequest(name=batch.name))
    counts = {count.state: count.count for count in found.batch.state_counts if count.count}
    assert counts == {State.TASK_STATE_SUCCEEDED: 3}


async def test_a_result_whose_output_was_cut_is_taken_only_after_its_output(
    admin: Admin, agent: RawAgent
) -> None:
    made = await admin.create(agent.agent_id)
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    for offset, data in ((0, b"one "), (6, b"lost before")):
        await tasks.send(chunk=pb2.OutputChunk(attempt_id=attempt, stream=STDOUT, offset=offset, data=data))
    await tasks.send(finished=succeeded(attempt, stdout_bytes=7))
    assert (await tasks.refused()).metadata["expected_offset"] == "4"

    tasks = await session.tasks(journal=[(attempt, True)])
    await tasks.expect("opened")
    for offset, data in ((0, b"one "), (4, b"two")):
        await tasks.send(chunk=pb2.OutputChunk(attempt_id=attempt, stream=STDOUT, offset=offset, data=data))
    await tasks.send(finished=succeeded(attempt, stdout_bytes=7))
    acknowledged = await tasks.expect("result_acknowledged")
    assert acknowledged.disposition == pb2.RESULT_DISPOSITION_COMMITTED
    assert await admin.output(made.name) == {STDOUT: b"one two"}


async def test_a_late_success_stops_the_attempt_that_came_after_it(folder: Path) -> None:
    clock = TurnedClock(datetime.now(UTC))
    async with serving(folder, clock) as site:
        admin = site.admin()
        assert site.server is not None
        _, token = await admin.token()
        agent = await site.enroll("node-1", token)
        made = await admin.create(agent.agent_id)
        tasks = await (await agent.come()).tasks()
        await tasks.expect("opened")
        first = (await tasks.expect("assignment")).attempt_id
        session = await agent.come()
        clock.turn(timedelta(minutes=5))
        await site.server.worker.sweep.run()
        tasks = await session.tasks()
        await tasks.expect("opened")
        second = (await tasks.expect("assignment")).attempt_id
        await tasks.send(accepted=accepted(second))
        await tasks.send(finished=succeeded(first))
        acknowledged = await tasks.expect("result_acknowledged")
        assert acknowledged.disposition == pb2.RESULT_DISPOSITION_COMMITTED
        assert (await tasks.expect("cancel")).attempt_id == second
        assert (await admin.task(made.name)).state == State.TASK_STATE_SUCCEEDED


async def test_a_stream_that_has_ended_is_gone_at_once_and_waits_for_no_collector(
    site: LocalSite, agent: RawAgent
) -> None:
    """The collector looks seldom, and a fleet that comes back ends ten thousand streams."""
    assert site.server is not None
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    gone = asyncio.Event()
    found = site.server.gateway.registry.get(agent.agent_id)
    assert found is not None
    weakref.finalize(found.work, gone.set)
    del found
    gc.disable()
    try:
        await tasks.half_close()
        await tasks.ended()
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
    finally:
        gc.enable()
