"""Sessions of agents on the real server: presence, replacement, deletion, renewal, the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from tests.integration.transport.doors import refusal
from tests.support.admin import Admin
from tests.support.agents import RawAgent
from tests.support.in_process import LocalSite, serving
from tests.support.process import running
from tests.support.streams import read, until
from tests.unit.identity.world import TurnedClock

# A beat is late soon, and the sweep looks often: what follows is awaited, not timed.
SHORT: dict[str, Any] = {
    "heartbeat_interval": "100ms",
    "stale_after": "300ms",
    "offline_after": "700ms",
    "presence_sweep": "50ms",
    "last_seen_flush": "50ms",
}


def has_presence(presence: int, change: registry.WatchAgentsResponse) -> bool:
    return change.agent.presence == presence


async def enrolled(site: LocalSite, admin: Admin, agent_id: str = "node-1") -> RawAgent:
    _, token = await admin.token()
    return await site.enroll(agent_id, token)


async def test_silence_makes_an_agent_stale_then_offline_and_each_says_why(folder: Path) -> None:
    async with serving(folder, **SHORT) as site:
        admin = site.admin()
        agent = await enrolled(site, admin)
        watch = await admin.watch_agents()
        assert (await admin.agent("node-1")).presence_reason == registry.PRESENCE_REASON_NEVER_CONNECTED
        session = await agent.come()
        seen = []
        for presence in (registry.PRESENCE_ONLINE, registry.PRESENCE_STALE, registry.PRESENCE_OFFLINE):
            change = await until(watch, partial(has_presence, presence))
            seen.append((change.agent.presence_reason, change.agent.presence_detail))
        assert [reason for reason, _ in seen] == [
            registry.PRESENCE_REASON_SESSION_OPENED,
            registry.PRESENCE_REASON_HEARTBEAT_LATE,
            registry.PRESENCE_REASON_SILENT,
        ]
        assert "no beat for" in seen[1][1]
        assert "because its beats were late" in seen[2][1]
        # The stream is open still: a beat brings it back.
        await session.beat()
        change = await until(watch, lambda c: c.agent.presence == registry.PRESENCE_ONLINE)
        assert change.agent.presence_reason == registry.PRESENCE_REASON_HEARTBEAT_RESUMED
        assert change.agent.session_epoch == session.epoch
        watch.cancel()


async def test_a_lost_stream_is_stale_at_once_and_offline_after_a_while(folder: Path) -> None:
    async with serving(folder, **SHORT) as site:
        admin = site.admin()
        agent = await enrolled(site, admin)
        await agent.come()
        watch = await admin.watch_agents()
        await agent.close()
        change = await until(watch, lambda c: c.agent.presence == registry.PRESENCE_STALE)
        assert change.agent.presence_reason == registry.PRESENCE_REASON_STREAM_LOST
        change = await until(watch, lambda c: c.agent.presence == registry.PRESENCE_OFFLINE)
        assert change.agent.presence_reason == registry.PRESENCE_REASON_SILENT
        assert "without a Goodbye" in change.agent.presence_detail
        watch.cancel()


async def test_goodbye_is_offline_at_once_with_its_reason(admin: Admin, agent: RawAgent) -> None:
    session = await agent.come()
    watch = await admin.watch_agents()
    await session.goodbye("going home")
    change = await read(watch)
    assert (change.agent.presence, change.agent.presence_reason) == (
        registry.PRESENCE_OFFLINE,
        registry.PRESENCE_REASON_GOODBYE,
    )
    assert change.agent.presence_detail == "going home"
    watch.cancel()


async def test_the_newest_session_wins_and_presence_stays(admin: Admin, agent: RawAgent) -> None:
    old = await agent.come()
    tasks, telemetry = await old.tasks(), await old.telemetry()
    await tasks.expect("opened")
    await telemetry.expect("opened")
    watch = await admin.watch_agents()
    new = await agent.come()
    assert new.epoch == old.epoch + 1
    told = (await old.stream.expect("reconnect")).reason
    assert told == pb2.RECONNECT_REASON_SESSION_REPLACED
    for stream in (old.stream, tasks, telemetry):
        assert (await stream.refused()).reason == "SESSION_REPLACED"
    await new.goodbye()
    changes: list[Any] = []
    while not changes or changes[-1].agent.presence == registry.PRESENCE_ONLINE:
        changes.append(await read(watch))
    watch.cancel()
    assert [change.agent.presence for change in changes[:-1]] == [registry.PRESENCE_ONLINE]
    assert changes[-1].agent.presence_reason == registry.PRESENCE_REASON_GOODBYE


async def test_deleting_an_agent_closes_its_streams_denies_it_and_cancels_its_tasks(
    admin: Admin, agent: RawAgent
) -> None:
    session = await agent.come()
    tasks, telemetry = await session.tasks(allowed=0), await session.telemetry()
    await tasks.expect("opened")
    await telemetry.expect("opened")
    made = [await admin.create(agent.agent_id) for _ in range(2)]
    watch = await admin.watch_agents()
    assert await admin.delete(agent.agent_id) == 2
    for stream in (session.stream, tasks, telemetry):
        refused = await stream.refused()
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_REVOKED")
    assert (await read(watch)).change_type == registry.CHANGE_TYPE_REMOVED
    watch.cancel()
    for task in made:
        assert (await admin.task(task.name)).state == task_service_pb2.TASK_STATE_CANCELLED
    for stub in (session.stub, agent.connect()):
        again = agent.heartbeat(stub)
        await again.send(hello=agent.hello())
        assert (await again.refused()).reason == "CERTIFICATE_REVOKED"
    assert (await refusal(admin.agent(agent.agent_id))).reason == "AGENT_UNKNOWN"


async def test_a_deleted_agent_enrols_anew_and_its_epochs_go_on(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    former = await agent.come()
    await admin.delete(agent.agent_id)
    again = await enrolled(site, admin, agent.agent_id)
    session = await again.come()
    assert session.epoch > former.epoch
    found = await admin.agent(agent.agent_id)
    assert (found.presence, found.suspected_clone) == (registry.PRESENCE_ONLINE, False)


async def test_reenrolment_replaces_the_certificate_and_closes_the_old_session(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    former = await agent.come()
    _, strict = await admin.token()
    refused = await refusal(site.enroll(agent.agent_id, strict))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "AGENT_ALREADY_ENROLLED")
    await former.beat()
    watch = await admin.watch_agents()
    _, token = await admin.token(allow_reenrollment=True)
    again = await site.enroll(agent.agent_id, token)
    assert (await former.stream.refused()).reason == "CERTIFICATE_REVOKED"
    change = await until(watch, lambda c: c.agent.presence == registry.PRESENCE_OFFLINE)
    assert change.agent.presence_reason == registry.PRESENCE_REASON_CERTIFICATE_ENDED
    watch.cancel()
    session = await again.come()
    assert session.epoch > former.epoch
    assert (await admin.agent(agent.agent_id)).presence == registry.PRESENCE_ONLINE


async def test_renewal_makes_before_it_breaks(admin: Admin, agent: RawAgent) -> None:
    old = await agent.come()
    watch = await admin.watch_agents()
    identity = await agent.renew(old.stub)
    await old.beat()
    agent.identity = identity
    new = await agent.come()
    assert (await old.stream.expect("reconnect")).reason == pb2.RECONNECT_REASON_SESSION_REPLACED
    assert (await old.stream.refused()).reason == "SESSION_REPLACED"
    change = await read(watch)
    assert change.agent.presence == registry.PRESENCE_ONLINE
    expected = identity.not_after.replace(microsecond=0)
    assert change.agent.certificate_expire_time.ToDatetime(UTC) == expected
    watch.cancel()
    # The former certificate is good no more: the next one was used.
    stale = agent.heartbeat(old.stub)
    await stale.send(hello=agent.hello())
    assert (await stale.refused()).reason == "CERTIFICATE_REVOKED"
    # Nor does it open a stream of the new session over the connection that is still there.
    for kind in ("tasks", "telemetry"):
        assert (await (await getattr(old, kind)(epoch=new.epoch)).refused()).reason == "SESSION_STALE"
    await new.beat()


async def test_the_end_of_the_certificate_ends_the_session(folder: Path) -> None:
    clock = TurnedClock(datetime.now(UTC))
    async with serving(folder, clock, agent_certificate_life="60s") as site:
        admin = site.admin()
        agent = await enrolled(site, admin)
        # By the server's clock, which stands still, a tenth of a second is left.
        clock.time = agent.identity.not_after - timedelta(milliseconds=100)
        session = await agent.come()
        watch = await admin.watch_agents()
        assert (await session.stream.expect("reconnect")).reason == pb2.RECONNECT_REASON_CERTIFICATE_EXPIRED
        refused = await session.stream.refused()
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")
        change = await read(watch)
        watch.cancel()
        assert (change.agent.presence, change.agent.presence_reason) == (
            registry.PRESENCE_OFFLINE,
            registry.PRESENCE_REASON_CERTIFICATE_ENDED,
        )


async def test_a_used_nonce_is_reported_as_a_copy(admin: Admin, agent: RawAgent) -> None:
    await agent.come()
    copied = agent.nonce
    await agent.come()
    await agent.come()
    agent.nonce = copied
    await agent.come()
    found = await admin.agent(agent.agent_id)
    assert found.suspected_clone
    assert "copy" in found.presence_detail


async def test_a_copy_is_turned_away_where_policy_says_so_and_the_agent_goes_on(folder: Path) -> None:
    async with serving(folder, clone_policy="refuse") as site:
        admin = site.admin()
        agent = await enrolled(site, admin)
        await agent.come()
        copy = replace(agent, channels=[])
        # A crash before the nonce was stored: its predecessor is believed.
        agent.nonce = b""
        await agent.come()
        session = await agent.come()
        stream = copy.heartbeat()
        await stream.send(hello=copy.hello())
        refused = await stream.refused()
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CLONE_SUSPECTED")
        await session.beat()
        found = await admin.agent(agent.agent_id)
        assert (found.suspected_clone, found.session_epoch) == (True, session.epoch)
        assert "turned away" in found.presence_detail
        # It is one agent again, with the nonce that it has: suspicion does not keep it out.
        await agent.come()
        cleared = registry.Agent(name=agent.name, suspected_clone=False)
        mask = FieldMask(paths=["suspected_clone"])
        await admin.agents.UpdateAgent(registry.UpdateAgentRequest(agent=cleared, update_mask=mask))
        await copy.come()
        assert not (await admin.agent(agent.agent_id)).suspected_clone
        await copy.close()


async def test_sigterm_sends_agents_away_and_ends_well(folder: Path) -> None:
    async with running(folder) as server:
        admin = server.admin()
        _, token = await admin.token(max_uses=3)
        stub = server.enrollment()
        agents = [await server.enroll(f"node-{number}", token, stub) for number in range(3)]
        sessions = [await agent.come() for agent in agents]
        tasks = await sessions[0].tasks()
        await tasks.expect("opened")
        ending = asyncio.create_task(server.terminate())
        for session in sessions:
            reconnect = await session.stream.expect("reconnect")
            assert reconnect.reason == pb2.RECONNECT_REASON_DRAINING
            assert (await session.stream.ended())[0] is grpc.StatusCode.OK
        assert (await tasks.ended())[0] is grpc.StatusCode.OK
        assert await ending == 0
        assert server.log[-1]["event"] == "stopped"
    async with running(folder) as server:
        found = await server.admin().agent("node-0")
        assert (found.presence, found.presence_reason) == (
            registry.PRESENCE_STALE,
            registry.PRESENCE_REASON_SERVER_ENDED,
        )


@pytest.mark.parametrize("streams", ["none", "watches"])
async def test_a_server_stops_while_clients_hold_on(folder: Path, streams: str) -> None:
    async with running(folder) as server:
        admin = server.admin()
        watches = [await admin.watch_agents(), await admin.watch_tasks()] if streams == "watches" else []
        assert await server.terminate() == 0
        for watch in watches:
            watch.cancel()
