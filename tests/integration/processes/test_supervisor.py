"""A server of several processes, each of which may die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from fleetwright.v1 import agent_registry_service_pb2

from devtools.postgres import PostgresServer
from tests.support.admin import FINAL, Admin
from tests.support.fleet import Effects, Fleet
from tests.support.process import ServerProcess, refused_start, running, settings_of
from tests.support.site import HOST, enroll, http_get
from tests.support.streams import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

AGENTS = 16
QUICK: dict[str, Any] = {
    "process_renewal": "200ms",
    "process_lease": "1s",
    "presence_sweep": "200ms",
    "tasks_sweep": "200ms",
    "lease_time": "2s",
    "heartbeat_interval": "1s",
}


class Site:
    """What the database knows of the processes."""

    def __init__(self, postgres: PostgresServer, url: str) -> None:
        self._postgres = postgres
        self._name = url.rpartition("/")[2]

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(self._postgres.query, statement, self._name)

    async def holders(self) -> Counter[str]:
        """Return how many agents are ONLINE at each gateway."""
        found = await self.ask("SELECT gateway_id FROM agents WHERE presence = 1")
        return Counter(gateway_id for (gateway_id,) in found)

    async def part(self, process_id: str) -> tuple[str, int]:
        """Return the name and the pid of a process."""
        ((part, pid),) = await self.ask(f"SELECT part, pid FROM processes WHERE process_id = '{process_id}'")
        return part.rpartition("/")[2], pid


def parts_of(server: ServerProcess, field: str) -> dict[str, int]:
    """Return what the supervisor said of its parts when all served."""
    (line,) = [entry for entry in server.log if entry.get("event") == "serving" and field in entry]
    return dict(line[field])


def served(server: ServerProcess) -> list[str]:
    """Return the parts that said that they serve, as often as they did."""
    return [entry["part"] for entry in server.log if entry.get("event") == "part serving"]


async def all_online(site: Site) -> Counter[str]:
    async with asyncio.timeout(PATIENCE):
        while (holders := await site.holders()).total() < AGENTS:
            pass
    return holders


async def done(admin: Admin, names: list[str]) -> None:
    """Wait until tasks are final, and check that they succeeded."""
    async with asyncio.timeout(2 * PATIENCE):
        for name in names:
            while (task := await admin.task(name)).state < FINAL:
                pass
            assert task.state == FINAL, task


async def test_agents_of_a_killed_gateway_go_on_at_the_others_and_it_is_started_again(
    folder: Path, postgres: PostgresServer, database_url: str, tmp_path: Path
) -> None:
    site, effects = Site(postgres, database_url), Effects(tmp_path / "effects")
    async with running(folder, database_url=database_url, gateways=3, **QUICK) as server:
        admin = server.admin()
        _, token = await admin.token(max_uses=AGENTS)
        stub = server.enrollment()
        identities = [await enroll(stub, f"node-{number}", token) for number in range(AGENTS)]
        fleet = Fleet(identities, f"{HOST}:{server.ports.agents}", effects)
        holders = await all_online(site)
        assert len(holders) > 1, "the kernel spreads connections over the gateways"
        before = [(await admin.create(f"node-{number}")).name for number in range(AGENTS)]
        await done(admin, before)

        killed = holders.most_common(1)[0][0]
        part, pid = await site.part(killed)
        os.kill(pid, signal.SIGKILL)
        during = [(await admin.create(f"node-{number}")).name for number in range(AGENTS)]
        await done(admin, during)
        assert killed not in await all_online(site)
        async with asyncio.timeout(PATIENCE):
            while served(server).count(part) < 2:
                await http_get(server.ports.health, "/healthz")
        assert await site.ask(f"SELECT 1 FROM processes WHERE part LIKE '%/{part}' AND restarts = 1")
        assert not await site.ask(f"SELECT 1 FROM processes WHERE process_id = '{killed}'")
        await fleet.stop()
        assert await server.terminate() == 0
        assert await site.ask("SELECT 1 FROM processes") == []
    assert effects.by_task() == Counter(before + during)
    effects.close()


@pytest.mark.parametrize("part", ["gateway-1", pytest.param("worker", marks=pytest.mark.long)])
async def test_a_part_that_is_stopped_is_killed_and_started_again(
    folder: Path, database_url: str, part: str
) -> None:
    async with running(folder, database_url=database_url, gateways=2, **QUICK) as server:
        stopped = psutil.Process(parts_of(server, "pids")[part])
        stopped.suspend()
        async with asyncio.timeout(2 * PATIENCE):
            while served(server).count(part) < 2:
                await http_get(server.ports.health, "/healthz")
        said = [entry for entry in server.log if "event loop does not run" in entry.get("event", "")]
        assert [(entry["part"], entry["pid"]) for entry in said] == [(part, stopped.pid)]
        assert not stopped.is_running()
        assert await server.terminate() == 0


@pytest.mark.long
async def test_a_part_that_drains_for_longer_than_silence_is_borne_is_not_killed(
    folder: Path, database_url: str
) -> None:
    slow = {**QUICK, "drain_window": "30s"}
    async with running(folder, database_url=database_url, gateways=2, **slow) as server:
        _, token = await server.admin().token(max_uses=8)
        # Sent away one after the other over the window, the last of each gateway near its end.
        for number in range(8):
            await (await server.enroll(f"a{number}", token)).come()
        # Not by its supervisor, which then would wait for it anyway.
        gateways = [pid for name, pid in parts_of(server, "pids").items() if name.startswith("gateway")]
        for pid in gateways:
            os.kill(pid, signal.SIGTERM)
        ended = "a part ended, and is started again"
        async with asyncio.timeout(2 * PATIENCE):
            while sum(entry.get("event") == ended for entry in server.log) < len(gateways):
                await http_get(server.ports.health, "/healthz")
        assert {entry["status"] for entry in server.log if entry.get("event") == ended} == {0}


async def test_parts_end_when_their_supervisor_is_killed(folder: Path, database_url: str) -> None:
    async with running(folder, database_url=database_url, gateways=2) as server:
        parts = [psutil.Process(pid) for pid in parts_of(server, "pids").values()]
        assert len(parts) == 4
        server.process.kill()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, parts, PATIENCE)
        assert (len(gone), alive) == (4, [])


async def test_a_part_that_cannot_start_ends_the_server_and_says_why(folder: Path, database_url: str) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = settings_of(folder, database_url=database_url, gateways=2, admin_port=port)
        status, text = await refused_start(settings)
    assert status == 1
    assert "part api could not be started" in text
    assert f"{HOST}:{port}" in text
    assert "Traceback" not in text


async def test_a_port_that_others_would_share_is_refused(folder: Path, database_url: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = settings_of(folder, database_url=database_url, gateways=2, agents_port=port)
        status, text = await refused_start(settings)
    assert status == 1
    assert f"agents port: {HOST}:{port} cannot be had" in text


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [("gateways", "2", "2 gateways"), ("roles", "gateway,api", "a server without the role worker")],
)
async def test_on_sqlite_several_processes_are_refused(
    folder: Path, setting: str, value: str, words: str
) -> None:
    status, text = await refused_start({**settings_of(folder), f"FLEETWRIGHT_{setting.upper()}": value})
    assert status == 1
    assert words in text
    assert "FLEETWRIGHT_DATABASE_URL" in text


async def test_roles_on_one_folder_share_a_postgresql(folder: Path, database_url: str) -> None:
    async with (
        running(folder, database_url=database_url, roles="api,worker,gateway") as all_roles,
        running(folder, database_url=database_url, roles="api,gateway,worker") as again,
    ):
        _, token = await all_roles.admin().token()
        agent = await again.enroll("a1", token)
        await agent.come()
        found = await all_roles.admin().agent("a1")
        assert found.presence == agent_registry_service_pb2.PRESENCE_ONLINE
