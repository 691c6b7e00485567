"""A small simulated fleet against a server that gives every agent one task."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from fleetwright.v1 import agent_service_pb2
from google.protobuf.duration_pb2 import Duration

from agent_sim.fleet.fleet import FleetConfig
from agent_sim.fleet.member import Member
from agent_sim.fleet.profiles import Profile
from agent_sim.fleet.running import Outputs, run_fleet
from agent_sim.protocol.agent import Agent
from agent_sim.protocol.identity import IdentityStore
from agent_sim.protocol.join_token import JoinToken
from agent_sim.protocol.journal import Journal, SQLiteJournal
from tests.integration.agent_sim.protocol_authority import Authority
from tests.integration.agent_sim.protocol_server import (
    HeartbeatPeer,
    ScriptedServer,
    TasksPeer,
    TelemetryPeer,
    acknowledge,
    echo,
)


class ObligingServer(ScriptedServer):
    """Welcomes every agent, gives each session one echo, and acknowledges everything."""

    given = 0
    done: asyncio.Event

    async def oblige(self) -> None:
        self.done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats(group))
            group.create_task(self._tasks(group))
            group.create_task(self._telemetry(group))

    async def _heartbeats(self, group: asyncio.TaskGroup) -> None:
        while True:
            group.create_task(self._heartbeat(await self.heartbeats.get()))

    async def _tasks(self, group: asyncio.TaskGroup) -> None:
        while True:
            group.create_task(self._work(await self.tasks.get()))

    async def _telemetry(self, group: asyncio.TaskGroup) -> None:
        while True:
            group.create_task(self._points(await self.telemetry.get()))

    async def _heartbeat(self, peer: HeartbeatPeer) -> None:
        await peer._received.get()
        welcome = self.make_welcome(timedelta(milliseconds=20), timedelta(milliseconds=20))
        peer.send(agent_service_pb2.HeartbeatResponse(welcome=welcome))
        available = agent_service_pb2.WorkAvailable()
        peer.send(agent_service_pb2.HeartbeatResponse(work_available=available))
        while (message := await peer._received.get()) is not None:
            answer = agent_service_pb2.BeatAcknowledged(sequence=message.beat.sequence)
            peer.send(agent_service_pb2.HeartbeatResponse(beat_acknowledged=answer))

    async def _work(self, peer: TasksPeer) -> None:
        await peer._received.get()
        opened = agent_service_pb2.TasksOpened(linger=Duration(nanos=20_000_000))
        peer.send(agent_service_pb2.TasksResponse(opened=opened))
        self.given += 1
        peer.send(echo(f"t{self.given}"))
        while (message := await peer._received.get()) is not None:
            if message.HasField("finished"):
                peer.send(acknowledge(message.finished.attempt_id))
                if message.finished.attempt_id == "t5":
                    self.done.set()

    async def _points(self, peer: TelemetryPeer) -> None:
        await peer._received.get()
        opened = agent_service_pb2.TelemetryOpened(budget=100, linger=Duration(seconds=60))
        peer.send(agent_service_pb2.TelemetryResponse(opened=opened))
        while (message := await peer._received.get()) is not None:
            last = message.batch.first_sequence + len(message.batch.points) - 1
            answer = agent_service_pb2.TelemetryAcknowledged(last_sequence=last, budget=100)
            peer.send(agent_service_pb2.TelemetryResponse(acknowledged=answer))


@pytest_asyncio.fixture
async def obliging(authority: Authority) -> AsyncIterator[ObligingServer]:
    server = ObligingServer(authority)
    await server.start()
    serving = asyncio.create_task(server.oblige())
    yield server
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await server.stop()


def config(server: ScriptedServer, shares: dict[Profile, float], identities: Path | None) -> FleetConfig:
    digest = base64.urlsafe_b64encode(server.authority.root_digest).rstrip(b"=").decode()
    return FleetConfig(
        agents=5,
        shares=shares,
        seed="7",
        id_prefix="sim",
        server_addresses=(),
        enrollment_address=server.enrollment_address,
        join_token=JoinToken.parse(f"fwt1.{'a' * 16}.secret.{digest}"),
        connect_concurrency=2,
        identities=identities,
    )


async def test_every_agent_enrols_connects_works_and_leaves(obliging: ObligingServer, tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "effects", tmp_path / "receipts", tmp_path / "ready")
    summary = await run_fleet(config(obliging, {Profile.HEALTHY: 1.0}, None), outputs, duration=0.4)
    effects = (tmp_path / "effects").read_text().splitlines()
    receipts = [json.loads(line) for line in (tmp_path / "receipts").read_text().splitlines()]
    assert (summary["enrolled"], summary["peak_connected"], summary["connected"]) == (5, 5, 0)
    assert json.loads((tmp_path / "ready").read_text()) == {"agents": 5, "connected": 5}
    assert len({line.split()[1] for line in effects}) == len(effects) == summary["effects"] == obliging.given
    assert summary["results_acknowledged"] == {"COMMITTED": obliging.given}
    assert {receipt["attempt"] for receipt in receipts} == {line.split()[1] for line in effects}
    assert summary["telemetry_points_acknowledged"] > 0
    assert summary["errors_by_reason"] == {}


async def test_kept_identities_are_used_again(obliging: ObligingServer, tmp_path: Path) -> None:
    settings = config(obliging, {Profile.HEALTHY: 1.0}, tmp_path / "identities")
    for _ in range(2):
        summary = await run_fleet(settings, Outputs(), duration=0.0)
        assert summary["peak_connected"] == 5
    assert len(obliging.enrolments) == 5


@pytest.mark.parametrize("profile", [Profile.FLAKY, Profile.SLOW_READER, Profile.HUNG, Profile.CLOCK_SKEWED])
async def test_agents_of_every_profile_connect_and_leave(obliging: ObligingServer, profile: Profile) -> None:
    summary = await run_fleet(config(obliging, {profile: 1.0}, None), Outputs(), duration=0.1)
    assert (summary["connected_once"], summary["connected"]) == (5, 0)


async def test_an_engine_that_crashes_is_counted_and_does_not_end_the_others(
    obliging: ObligingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_agent = Member.make_agent

    def make_four(
        member: Member, identities: IdentityStore, addresses: tuple[str, ...], journal: Journal
    ) -> Agent:
        if member.agent_id == "sim-3":
            raise RuntimeError("a defect")
        return make_agent(member, identities, addresses, journal)

    monkeypatch.setattr(Member, "make_agent", make_four)
    summary = await run_fleet(config(obliging, {Profile.HEALTHY: 1.0}, None), Outputs(), duration=0.1)
    assert (summary["connected_once"], summary["stopped_early"]) == (4, 1)
    assert summary["errors_by_reason"] == {"RuntimeError": 1}


async def test_kept_journals_are_used_again(obliging: ObligingServer, tmp_path: Path) -> None:
    settings = replace(config(obliging, {Profile.HEALTHY: 1.0}, None), journals=tmp_path)
    ids: list[set[str]] = []
    for _ in range(2):
        await run_fleet(settings, Outputs(), duration=0.1)
        journals = [SQLiteJournal(tmp_path / f"sim-{number}.sqlite3") for number in range(1, 6)]
        ids.append({journal.journal_id for journal in journals})
        for journal in journals:
            await journal.close()
    assert ids[0] == ids[1]
    assert len(ids[0]) == 5
