"""The agent's program killed at each place between receive and forget: one effect at most, never silence."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from fleetwright.v1 import work_pb2

from agent_sim.failpoints import VARIABLE
from agent_sim.protocol.journal import SQLiteJournal
from tests.integration.agent.small_server import Result, SmallServer, small_server
from tests.integration.agent.test_agent_program import program

SUCCEEDED, INTERRUPTED = work_pb2.OUTCOME_SUCCEEDED, work_pb2.OUTCOME_INTERRUPTED

# What the server hears in the end, and how often the script wrote into its file.
PLACES = {
    "agent.after_receive": (SUCCEEDED, 1),
    "agent.after_journal": (SUCCEEDED, 1),
    "agent.after_running": (INTERRUPTED, 0),
    "agent.after_effect": (INTERRUPTED, 1),
    "agent.after_result": (SUCCEEDED, 1),
    "agent.after_send": (SUCCEEDED, 1),
    "agent.after_acknowledge": (SUCCEEDED, 1),
    "agent.after_forget": (SUCCEEDED, 1),
}


@dataclass
class Site:
    server: SmallServer
    state: Path

    async def agent(self, failpoint: str = "") -> asyncio.subprocess.Process:
        return await program("run", f"--state={self.state}", **{VARIABLE: failpoint})


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with small_server() as (server, enrolment_port, agent_port):
        state = tmp_path / "state"
        enrolling = await program(
            "enroll",
            f"--server=127.0.0.1:{enrolment_port}",
            f"--agent-address=127.0.0.1:{agent_port}",
            "--agent-id=web-1",
            f"--state={state}",
            FLEETWRIGHT_JOIN_TOKEN=server.token,
        )
        _, errors = await enrolling.communicate()
        assert await enrolling.wait() == 0, errors.decode()
        yield Site(server, state)


async def killed(agent: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60):
        _, errors = await agent.communicate()
    assert agent.returncode == -signal.SIGKILL, errors.decode()


async def leave(agent: asyncio.subprocess.Process) -> None:
    agent.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        _, errors = await agent.communicate()
    assert agent.returncode == 0, errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
async def test_an_agent_that_is_killed_has_its_effect_once_and_reports_it(
    site: Site, place: str, tmp_path: Path
) -> None:
    witness = tmp_path / "effects"
    witness.touch()
    script = work_pb2.ScriptSpec(interpreter="sh", body=f"echo done >> {witness}; sync {witness}")
    agent = await site.agent(f"{place}=kill@1")
    given: asyncio.Task[Result] = asyncio.create_task(site.server.give(script=script))
    await killed(agent)

    agent = await site.agent()
    result, _ = await given
    # Another one behind it: what the first one left has been settled when this is answered.
    await site.server.give(echo=work_pb2.EchoSpec(payload=b"after"))
    await leave(agent)
    outcome, effects = PLACES[place]
    assert (result.outcome, witness.read_text().count("done")) == (outcome, effects)
    journal = SQLiteJournal(site.state / "journal.sqlite3")
    assert (journal.unreported, journal.entries()) == (0, [])
    await journal.close()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["agent.after_welcome", "agent.after_nonce"])
async def test_an_agent_that_is_killed_around_its_nonce_comes_back(site: Site, place: str) -> None:
    await killed(await site.agent(f"{place}=kill@1"))
    agent = await site.agent()
    echoed, _ = await site.server.give(echo=work_pb2.EchoSpec(payload=b"back"))
    assert echoed.echo.payload == b"back"
    shown = [hello.session_nonce for hello in site.server.hellos]
    assert shown == [b"", b"" if place == "agent.after_welcome" else bytes(16)]
    await leave(agent)


async def test_a_failpoint_that_no_code_has_is_refused(site: Site) -> None:
    agent = await site.agent("agent.after_lunch=kill@1")
    _, errors = await agent.communicate()
    assert agent.returncode != 0
    assert b"agent.after_lunch=kill@1" in errors
