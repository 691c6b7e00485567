"""What happens while an agent says Hello, or says nothing at all, to the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from grpc import StatusCode

from controlplane.agents.operations import OpenSession
from controlplane.storage.writer import Writer
from tests.support.admin import Admin
from tests.support.agents import RawAgent, accepted
from tests.support.in_process import LocalSite, serving
from tests.support.streams import Stream, until

Then = Callable[[], Awaitable[Any]]


@pytest.fixture
def after_commit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Then], None]:
    """Let something happen once, between the commit of a session and its entry."""
    submit = Writer.submit

    def arrange(then: Then) -> None:
        async def interrupted(self: Writer, operation: Any) -> Any:
            outcome = await submit(self, operation)
            if isinstance(operation, OpenSession):
                monkeypatch.setattr(Writer, "submit", submit)
                await then()
            return outcome

        monkeypatch.setattr(Writer, "submit", interrupted)

    return arrange


async def said_hello(agent: RawAgent) -> Stream:
    stream = agent.heartbeat()
    await stream.send(hello=agent.hello())
    return stream


async def test_an_agent_that_is_deleted_while_its_session_is_committed_gets_none(
    site: LocalSite, admin: Admin, agent: RawAgent, after_commit: Callable[[Then], None]
) -> None:
    after_commit(lambda: admin.delete(agent.agent_id))
    code, said = await (await said_hello(agent)).ended()
    assert (code, said) == (StatusCode.UNAUTHENTICATED, [])
    assert site.server is not None
    assert len(site.server.gateway.registry) == 0


async def test_a_certificate_that_is_revoked_while_its_session_is_committed_leaves_it_offline(
    site: LocalSite, admin: Admin, agent: RawAgent, after_commit: Callable[[Then], None]
) -> None:
    _, token = await admin.token(allow_reenrollment=True)
    watch = await admin.watch_agents()
    after_commit(lambda: site.enroll(agent.agent_id, token))
    assert (await (await said_hello(agent)).refused()).reason == "CERTIFICATE_REVOKED"
    change = await until(watch, lambda c: c.agent.presence == registry.PRESENCE_OFFLINE)
    watch.cancel()
    assert change.agent.presence_reason == registry.PRESENCE_REASON_CERTIFICATE_ENDED


async def test_a_session_that_was_committed_while_the_server_began_to_drain_is_sent_away(
    site: LocalSite, agent: RawAgent, after_commit: Callable[[Then], None]
) -> None:
    assert site.server is not None
    after_commit(site.server.gateway.heartbeats.drain)
    stream = await said_hello(agent)
    await stream.expect("welcome")
    assert (await stream.expect("reconnect")).reason == pb2.RECONNECT_REASON_DRAINING
    assert (await stream.ended())[0] is StatusCode.OK


async def test_a_journal_that_was_lost_is_known_although_the_stream_ends_with_the_commit(
    admin: Admin, agent: RawAgent, after_commit: Callable[[Then], None]
) -> None:
    """The next Hello shows no change of journal any more."""
    made = await admin.create(agent.agent_id)
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    await tasks.send(accepted=accepted((await tasks.expect("assignment")).attempt_id))
    await tasks.half_close()
    await tasks.ended()

    async def leave() -> None:
        stream.call.cancel()
        await asyncio.Event().wait()  # until the server hears of it

    after_commit(leave)
    agent.journal_id = "journal-2"
    stream = await said_hello(agent)
    with pytest.raises(asyncio.CancelledError):
        await stream.ended()
    await agent.come()
    assert (await admin.task_ended(made.name)).attempt_count == 1


async def test_a_full_server_lets_an_agent_replace_its_own_session_and_no_one_else_in(
    folder: Path,
) -> None:
    async with serving(folder, max_agents=1) as site:
        admin = site.admin()
        _, token = await admin.token(max_uses=2)
        first, other = [await site.enroll(f"node-{number}", token) for number in range(2)]
        former = await first.come()
        refused = await (await said_hello(other)).refused()
        assert (refused.reason, refused.retry_after is not None) == ("UNAVAILABLE", True)
        session = await first.come()
        assert (await former.stream.refused()).reason == "SESSION_REPLACED"
        await session.beat()


async def test_a_stream_on_which_nothing_is_said_is_closed(folder: Path) -> None:
    async with serving(folder, handshake_timeout="1s") as site:
        admin = site.admin()
        _, token = await admin.token()
        agent = await site.enroll("node-1", token)
        session = await agent.come()
        silent = (session.stub.Heartbeat(), session.stub.Tasks(), session.stub.Telemetry())
        answers = await asyncio.gather(*(Stream(call, type(None)).refused() for call in silent))
        assert {answer.reason for answer in answers} == {"PROTOCOL_VIOLATION"}
        await session.beat()
