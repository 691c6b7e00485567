"""The agent's program on a disk that fills: it starts on it too, and goes on when there is room."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetwright.v1 import work_pb2

from tests.integration.agent.small_server import small_server
from tests.integration.agent.test_agent_kills import leave
from tests.integration.agent.test_agent_program import program
from tests.unit.agent_sim.test_protocol_journal_full import fill

DISK = 24 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def status(state: Path) -> dict[str, object]:
    asked = await program("status", "-o", "json", f"--state={state}")
    found: dict[str, object] = json.loads((await asked.communicate())[0])
    return found


@pytest.mark.slow
async def test_an_agent_that_is_killed_on_a_full_disk_starts_on_it_and_works_when_there_is_room(
    disk: Path,
) -> None:
    state = disk / "state"
    async with small_server() as (server, enrolment_port, agent_port):
        enrolling = await program(
            "enroll",
            f"--server=127.0.0.1:{enrolment_port}",
            f"--agent-address=127.0.0.1:{agent_port}",
            "--agent-id=web-1",
            f"--state={state}",
            FLEETWRIGHT_JOIN_TOKEN=server.token,
        )
        _, errors = await enrolling.communicate()
        assert enrolling.returncode == 0, errors.decode()
        agent = await program("run", f"--state={state}")
        await server.give(echo=work_pb2.EchoSpec(payload=b"before"))
        agent.kill()
        await agent.communicate()

        # So full that not even the reserve is whole: an agent that starts now knows it at once.
        (state / "journal.sqlite3-reserve").unlink()
        filler = fill(disk)
        agent = await program("run", f"--state={state}")
        given = asyncio.create_task(server.give(echo=work_pb2.EchoSpec(payload=b"when there is room")))
        async with asyncio.timeout(60):
            while len(server.hellos) < 2:  # noqa: ASYNC110 - the server of the test has no event for it
                await asyncio.sleep(0.05)
        assert agent.returncode is None
        assert not given.done()
        filler.unlink()
        result, _ = await given
        assert result.echo.payload == b"when there is room"
        async with asyncio.timeout(60):
            while (await status(state))["disk_full"]:
                pass
        await leave(agent)
