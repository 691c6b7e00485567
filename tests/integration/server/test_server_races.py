"""What happens at once on the real server: no order of events loses work or presence."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2

from tests.support.admin import Admin
from tests.support.agents import RawAgent, RawSession, accepted, succeeded
from tests.support.streams import Stream, read


async def finish_all(tasks: Stream, left: set[str]) -> None:
    """Run what comes on ``tasks`` until nothing of ``left`` is left."""
    while left:
        assignment = await tasks.until("assignment")
        await tasks.send(accepted=accepted(assignment.attempt_id))
        await tasks.send(finished=succeeded(assignment.attempt_id))
        acknowledged = await tasks.until("result_acknowledged")
        assert acknowledged.disposition == pb2.RESULT_DISPOSITION_COMMITTED
        left.discard(assignment.task)


async def test_work_that_comes_while_a_tasks_stream_closes_is_announced_or_handed_out(
    admin: Admin, agent: RawAgent
) -> None:
    """The slow poll is an hour away here: a wake-up that got lost would hang this."""
    session = await agent.come()
    for round_ in range(30):
        tasks = await session.tasks()
        await tasks.expect("opened")
        made, _ = await asyncio.gather(admin.create(agent.agent_id), tasks.half_close())
        code, said = await tasks.ended()
        assert code is grpc.StatusCode.OK
        if round_ == 0 or not any(message.HasField("assignment") for message in said):
            await session.stream.until("work_available")
        again = await session.tasks()
        await finish_all(again, {made.name})
        await again.half_close()
        await again.ended()


async def test_work_created_by_many_at_once_reaches_a_waiting_stream_once_each(
    admin: Admin, agent: RawAgent
) -> None:
    session = await agent.come()
    tasks = await session.tasks(allowed=3)
    await tasks.expect("opened")
    creating = asyncio.gather(*(admin.create(agent.agent_id) for _ in range(60)))
    seen: list[str] = []
    while len(seen) < 60:
        assignment = await tasks.until("assignment")
        seen.append(assignment.task)
        await tasks.send(accepted=accepted(assignment.attempt_id))
        await tasks.send(finished=succeeded(assignment.attempt_id))
        await tasks.send(credits=pb2.CreditsAdded(credits=1))
    assert sorted(seen) == sorted(task.name for task in await creating)


async def test_of_many_hellos_at_once_one_session_lives_on(admin: Admin, agent: RawAgent) -> None:
    watch = await admin.watch_agents()

    async def come() -> RawSession | None:
        try:
            return await agent.come()
        except (AssertionError, grpc.aio.AioRpcError):
            return None  # a newer one was there before it was welcomed

    sessions = [session for session in await asyncio.gather(*(come() for _ in range(10))) if session]
    newest = max(sessions, key=lambda session: session.epoch)
    for session in sessions:
        if session is not newest:
            refused = await session.stream.refused()
            assert refused.reason == "SESSION_REPLACED"
    await newest.beat()
    found = await admin.agent(agent.agent_id)
    assert (found.presence, found.session_epoch) == (registry.PRESENCE_ONLINE, newest.epoch)
    await newest.goodbye()
    presence = registry.PRESENCE_ONLINE
    while presence == registry.PRESENCE_ONLINE:
        presence = (await read(watch)).agent.presence
    watch.cancel()
    assert presence == registry.PRESENCE_OFFLINE


async def test_an_agent_that_is_deleted_while_it_says_hello_is_not_left_online(
    site: Any, admin: Admin
) -> None:
    _, token = await admin.token(max_uses=20)
    stub = site.enrollment()
    for number in range(20):
        agent = await site.enroll(f"doomed-{number}", token, stub)

        async def come(agent: RawAgent = agent) -> RawSession | None:
            try:
                return await agent.come()
            except (AssertionError, grpc.aio.AioRpcError):
                return None

        session, _ = await asyncio.gather(come(), admin.delete(agent.agent_id))
        if session is not None:
            assert (await session.stream.refused()).reason == "CERTIFICATE_REVOKED"
    listed = await admin.agents.ListAgents(registry.ListAgentsRequest())
    assert list(listed.agents) == []
