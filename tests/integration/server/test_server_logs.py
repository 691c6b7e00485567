"""Each line of the log names the agent, session, task and call that it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2, work_pb2
from grpc import StatusCode

from tests.integration.transport.doors import refusal
from tests.support.admin import Admin
from tests.support.agents import RawAgent, accepted, succeeded
from tests.support.in_process import LocalSite, serving
from tests.support.logs import Lines, logged
from tests.support.process import running
from tests.support.site import HOST
from tests.support.streams import Stream, until
from tests.unit.identity.world import TurnedClock

Line = dict[str, Any]
REQUEST = (("x-request-id", "request-of-the-test"),)


@pytest.fixture
def lines(agent: RawAgent) -> Iterator[Lines]:
    """What is logged once the agent is enrolled."""
    del agent
    with logged("debug") as written:
        yield written


def have(found: Iterable[Line], **wanted: object) -> None:
    """Check that there are such lines, and that each has these values."""
    listed = list(found)
    assert listed
    for line in listed:
        assert {name: line.get(name) for name in wanted} == wanted, line


async def run(tasks: Stream, outcome: int = work_pb2.OUTCOME_SUCCEEDED) -> pb2.Assignment:
    """Take one task and end it."""
    assignment: pb2.Assignment = await tasks.until("assignment")
    await tasks.send(accepted=accepted(assignment.attempt_id))
    finished = succeeded(assignment.attempt_id)
    finished.result.outcome = work_pb2.Outcome.ValueType(outcome)
    finished.result.reason = "the reason is the agent's"
    await tasks.send(finished=finished)
    await tasks.until("result_acknowledged")
    return assignment


async def test_lines_of_a_session_and_its_streams_name_both(lines: Lines, agent: RawAgent) -> None:
    session = await agent.come()
    tasks, telemetry = await session.tasks(), await session.telemetry()
    await tasks.expect("opened")
    await telemetry.expect("opened")
    for stream in (tasks, telemetry):
        await stream.half_close()
        await stream.ended()
    await session.goodbye("for the night")
    have(lines.of("session opened"), agent=agent.agent_id, session=session.epoch, method="Heartbeat")
    have(lines.of("session ended"), agent=agent.agent_id, session=session.epoch, why="GOODBYE", level="debug")
    ended = lines.of("call ended")
    assert {line["method"] for line in ended} >= {"Heartbeat", "Tasks", "Telemetry"}
    have(ended, agent=agent.agent_id, session=session.epoch, code="OK")
    assert len({line["request_id"] for line in ended}) == len(ended)


async def test_lines_of_an_attempt_name_its_task_and_its_session(
    lines: Lines, admin: Admin, agent: RawAgent
) -> None:
    session = await agent.come()
    tasks = await session.tasks()
    made = await admin.create(agent.agent_id)
    assignment = await run(tasks)
    about = {
        "agent": agent.agent_id,
        "session": session.epoch,
        "task": made.name.removeprefix("tasks/"),
        "attempt": assignment.attempt_id,
    }
    have(lines.of("attempt assigned"), **about, number=1)
    have(lines.of("attempt ended"), **about, outcome="SUCCEEDED", disposition="COMMITTED", level="debug")
    [assigned], [ended] = lines.of("attempt assigned"), lines.of("attempt ended")
    assert assigned["request_id"] == ended["request_id"]


async def test_what_failed_is_told_at_the_usual_level_and_without_the_words_of_the_agent(
    lines: Lines, admin: Admin, agent: RawAgent
) -> None:
    tasks = await (await agent.come()).tasks()
    made = await admin.create(agent.agent_id)
    await run(tasks, work_pb2.OUTCOME_FAILED)
    have(lines.of("attempt ended"), task=made.name.removeprefix("tasks/"), outcome="FAILED", level="info")
    assert "the reason is" not in lines.getvalue()


async def test_every_line_of_a_server_is_an_object_also_where_handshakes_fail(folder: Path) -> None:
    async with running(folder) as site:
        for port in (site.ports.agents, site.ports.admin, site.ports.enrollment):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()  # to the end: it was refused
            writer.close()
        await site.terminate()
    assert [line["event"] for line in site.log if "level" not in line] == []


async def test_an_attempt_that_is_not_known_is_named(lines: Lines, agent: RawAgent) -> None:
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    await tasks.send(finished=succeeded("never-leased"))
    await tasks.expect("result_acknowledged")
    have(lines.of("attempt unknown"), attempt="never-leased", session=session.epoch, agent=agent.agent_id)


async def test_lines_of_an_administrators_call_name_it_and_what_it_is_about(
    lines: Lines, admin: Admin, agent: RawAgent
) -> None:
    create = task_service_pb2.CreateTaskRequest(
        agent=agent.name, spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec())
    )
    made = (await admin.tasks.CreateTask(create, metadata=REQUEST)).task
    have(
        lines.of("audit"),
        request_id="request-of-the-test",
        task=made.name.removeprefix("tasks/"),
        actor="spiffe://fleetwright.local/operator/admin",
        outcome="OK",
    )
    await admin.agents.DeleteAgent(registry.DeleteAgentRequest(name=agent.name), metadata=REQUEST)
    have(lines.of("agent deleted"), agent=agent.agent_id, request_id="request-of-the-test")
    have(lines.of("audit")[1:], agent=agent.agent_id, request_id="request-of-the-test")
    have(lines.of("certificates revoked"), agent=agent.agent_id, request_id="request-of-the-test")


async def test_the_line_of_a_refused_call_has_its_reason(lines: Lines, admin: Admin, agent: RawAgent) -> None:
    request = task_service_pb2.GetTaskRequest(name="tasks/none")
    await refusal(admin.tasks.GetTask(request, metadata=REQUEST))
    have(
        lines.of("call ended"),
        request_id="request-of-the-test",
        method="GetTask",
        code="NOT_FOUND",
        reason="TASK_UNKNOWN",
    )


async def test_an_agent_is_named_on_every_line_of_its_calls_also_where_it_is_refused(
    lines: Lines, agent: RawAgent
) -> None:
    stream = agent.heartbeat()
    await stream.send(hello=agent.hello(protocol_version=99))
    await stream.refused()
    await refusal(
        agent.connect().RenewCertificate(pb2.RenewCertificateRequest(certificate_signing_request=b"x"))
    )
    have(lines.all(), agent=agent.agent_id, actor=agent.identity.spiffe_id)
    assert {line["method"].rpartition("/")[2] for line in lines.all()} == {"Heartbeat", "RenewCertificate"}


async def test_sweeps_name_their_schedule_and_the_tasks_and_agents_that_they_changed(folder: Path) -> None:
    clock = TurnedClock(datetime.now(UTC))
    async with serving(folder, clock) as site:
        admin = site.admin()
        _, token = await admin.token()
        agent = await site.enroll("node-1", token)
        made = await admin.create(agent.agent_id)
        session = await agent.come()
        clock.time += timedelta(days=30)
        with logged("info") as lines:
            await swept(site, "tasks", "health")
        have(lines.of("tasks expired"), schedule="tasks", count=1, tasks=[made.name.removeprefix("tasks/")])
        have(lines.of("presence changed"), schedule="health", agent=agent.agent_id, session=session.epoch)


async def swept(site: LocalSite, *names: str) -> None:
    """Run schedules now."""
    assert site.server is not None
    for schedule in site.server.gateway.schedules() + site.server.worker.schedules():
        if schedule.name in names:
            await site.server.schedules.run_once(schedule)


async def test_a_loss_is_told_at_the_usual_level_and_a_drain_is_not(folder: Path) -> None:
    async with serving(folder) as site:
        _, token = await site.admin().token(max_uses=2)
        lost, drained = [await site.enroll(name, token) for name in ("lost", "drained")]
        with logged("info") as lines:
            await lost.come()
            stayed = await drained.come()
            watch = await site.admin().watch_agents("presence = STALE")
            await lost.close()
            await until(watch, lambda change: change.agent.name == lost.name)
            watch.cancel()
            assert site.server is not None
            await site.server.gateway.heartbeats.drain()
            assert (await stayed.stream.ended())[0] is StatusCode.OK
        [line] = lines.of("session ended")
        assert (line["agent"], line["why"], line["session"]) == ("lost", "STREAM_LOST", 1)
