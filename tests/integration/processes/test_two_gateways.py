"""Two server processes on one PostgreSQL, here on one event loop, so that a test knows who holds what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from fleetwright.v1 import (
    agent_registry_service_pb2,
    agent_service_pb2,
    identity_service_pb2,
    identity_service_pb2_grpc,
)

from controlplane.bootstrap import Server
from controlplane.processes import store
from controlplane.schedules import Turn
from controlplane.storage.location import Postgres
from controlplane.storage.migrate import upgrade
from controlplane.trust import setup
from devtools.postgres import PostgresServer
from tests.integration.transport.doors import read_refusal
from tests.support.agents import RawAgent
from tests.support.in_process import LocalSite, serving
from tests.support.streams import PATIENCE, refused

pytestmark = pytest.mark.slow

ONLINE = agent_registry_service_pb2.PRESENCE_ONLINE
STALE = agent_registry_service_pb2.PRESENCE_STALE


class Two(NamedTuple):
    """A server with all roles, and a second gateway."""

    first: LocalSite
    second: LocalSite

    async def agent(self, agent_id: str) -> RawAgent:
        """Enrol an agent, which connects to the first."""
        _, token = await self.first.admin().token()
        return await self.first.enroll(agent_id, token)

    def at_second(self, agent: RawAgent) -> None:
        """Let the next connection of an agent be to the second."""
        agent.address = f"127.0.0.1:{self.second.ports.agents}"


def server_of(site: LocalSite) -> Server:
    assert site.server is not None
    return site.server


async def until_it_fails(call: Callable[[], Awaitable[object]]) -> None:
    """Call again and again, and let the error pass."""
    async with asyncio.timeout(PATIENCE):
        while True:
            await call()


@asynccontextmanager
async def two(folder: Path, url: str, **settings: Any) -> AsyncIterator[Two]:
    await asyncio.to_thread(upgrade, Postgres(url))
    async with (
        serving(folder, database_url=url, **settings) as first,
        serving(folder, database_url=url, roles="gateway", **settings) as second,
    ):
        for site in (first, second):
            notifications = server_of(site).engines.notifications
            assert notifications is not None
            await asyncio.wait_for(notifications.listening.wait(), PATIENCE)
        yield Two(first, second)


async def test_the_newest_session_wins_over_one_in_another_process(folder: Path, database_url: str) -> None:
    async with two(folder, database_url) as sites:
        agent = await sites.agent("a1")
        old = await agent.come()
        sites.at_second(agent)
        new = await agent.come()
        assert new.epoch == old.epoch + 1
        code, said = await old.stream.ended()
        assert code is grpc.StatusCode.ABORTED
        assert said[-1].reconnect.reason == agent_service_pb2.RECONNECT_REASON_SESSION_REPLACED
        await new.beat()
        assert (await sites.first.admin().agent("a1")).presence == ONLINE


async def test_a_lost_wake_up_is_made_up_for_by_the_look_at_health(folder: Path, database_url: str) -> None:
    async with two(folder, database_url) as sites:
        agent = await sites.agent("a1")
        old = await agent.come()
        server_of(sites.first).engines.wakeups.on_sessions.clear()
        sites.at_second(agent)
        await agent.come()
        await server_of(sites.first).gateway.upkeep.check_health()
        assert (await refused(old.stream.call)).reason == "SESSION_REPLACED"


async def test_work_is_announced_wherever_the_agent_is(folder: Path, database_url: str) -> None:
    async with two(folder, database_url) as sites:
        agent = await sites.agent("a1")
        sites.at_second(agent)
        session = await agent.come()
        await sites.first.admin().create("a1")
        await session.stream.until("work_available")


async def test_a_revocation_ends_the_session_wherever_it_is(folder: Path, database_url: str) -> None:
    async with two(folder, database_url) as sites:
        agent = await sites.agent("a1")
        sites.at_second(agent)
        session = await agent.come()
        await sites.first.admin().delete("a1")
        assert (await refused(session.stream.call)).reason == "CERTIFICATE_REVOKED"


async def test_a_revoked_operator_is_refused_by_every_process(folder: Path, database_url: str) -> None:
    async with (
        two(folder, database_url) as sites,
        serving(folder, database_url=database_url, roles="api") as other,
    ):
        identity = setup.issue_identity(folder, "operator", "night", datetime.now(UTC))
        night = other.admin(identity)
        await night.all_tasks()
        await server_of(other).rooms.identity.administrators.record()
        identities = identity_service_pb2_grpc.IdentityServiceStub(sites.first.admin().channel)
        listed = await identities.ListIdentities(identity_service_pb2.ListIdentitiesRequest())
        (name,) = (one.name for one in listed.identities if one.display_name == "night")
        await identities.RevokeIdentity(identity_service_pb2.RevokeIdentityRequest(name=name))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await until_it_fails(night.all_tasks)
        assert read_refusal(refusal.value).reason == "CERTIFICATE_REVOKED"


async def test_a_process_cut_off_and_taken_for_gone_claims_its_sessions(
    folder: Path, database_url: str
) -> None:
    async with two(folder, database_url) as sites:
        first, second = server_of(sites.first), server_of(sites.second)
        agent, other = await sites.agent("a1"), await sites.agent("a2")
        sites.at_second(agent)
        sites.at_second(other)
        session, moved = await agent.come(), await other.come()
        async with first.engines.database.unit_of_work() as work:
            await store.remove(work, second.engines.process.process_id)
        await first.rooms.processes.sweep(Turn("processes"))
        assert (await sites.first.admin().agent("a1")).presence == STALE
        other.address = f"127.0.0.1:{sites.first.ports.agents}"
        second.engines.wakeups.on_sessions.clear()
        await other.come()

        assert not await second.rooms.member.renew()
        second.gateway.look_again()
        assert (await refused(moved.stream.call)).reason == "SESSION_REPLACED"
        await second.gateway.registry.settled()
        found = await sites.first.admin().agent("a1")
        assert (found.presence, found.session_epoch) == (ONLINE, session.epoch)
        await session.beat()


async def test_agents_stay_connected_while_postgresql_is_away(
    folder: Path, postgres: PostgresServer, database_url: str
) -> None:
    often = {"process_renewal": "100ms", "process_lease": "1s", "presence_sweep": "200ms"}
    async with two(folder, database_url, **often) as sites:
        agent, other = await sites.agent("a1"), await sites.agent("a2")
        sites.at_second(other)
        sessions = [await agent.come(), await other.come()]
        await asyncio.to_thread(postgres.restart, 2.0)
        for session in sessions:
            await session.beat()
        admin = sites.first.admin()

        async def online() -> bool:
            try:
                found = [await admin.agent(name) for name in ("a1", "a2")]
            except grpc.aio.AioRpcError:
                return False
            return [one.presence for one in found] == [ONLINE, ONLINE]

        async with asyncio.timeout(PATIENCE):
            while not await online():
                pass
        for found in [await admin.agent(name) for name in ("a1", "a2")]:
            assert found.session_epoch == 1
            assert found.presence_reason == agent_registry_service_pb2.PRESENCE_REASON_SESSION_OPENED
        await admin.create("a2")
        await sessions[1].stream.until("work_available")
