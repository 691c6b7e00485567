"""The agent's program against a small server: enrol, work, measure, leave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest_asyncio
from fleetwright.v1 import work_pb2

from tests.integration.agent.small_server import Result, SmallServer, small_server

REPOSITORY = Path(__file__).parents[3]


@dataclass
class Running:
    """A server with the one agent that runs against it."""

    server: SmallServer
    agent: asyncio.subprocess.Process
    state: Path

    async def stop(self) -> tuple[int, list[dict[str, object]]]:
        """Ask the agent to leave; return its exit status and its log."""
        self.agent.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            _, log = await self.agent.communicate()
        return await self.agent.wait(), [json.loads(line) for line in log.decode().splitlines()]


async def program(*arguments: str, **extra: str) -> asyncio.subprocess.Process:
    path = f"{REPOSITORY}:{REPOSITORY / 'proto/python'}"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent_sim.agent.cli",
        *arguments,
        env={**os.environ, "PYTHONPATH": path, **extra},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    state = tmp_path / "state"
    async with small_server() as (server, enrolment_port, agent_port):
        enrolling = await program(
            "enroll",
            f"--server=127.0.0.1:{enrolment_port}",
            f"--agent-address=127.0.0.1:{agent_port}",
            "--agent-id=web-1",
            f"--state={state}",
            FLEETWRIGHT_JOIN_TOKEN=server.token,
        )
        told, errors = await enrolling.communicate()
        assert await enrolling.wait() == 0, errors.decode()
        assert b"spiffe://fleetwright.local/agent/web-1" in told
        agent = await program("run", f"--state={state}", SECRET_OF_THE_AGENT="x")
        one = Running(server, agent, state)
        try:
            yield one
        finally:
            if one.agent.returncode is None:
                one.agent.kill()
                await one.agent.communicate()


async def test_an_agent_enrols_works_measures_and_leaves_in_order(running: Running) -> None:
    server = running.server
    script = work_pb2.ScriptSpec(interpreter="sh", body="echo out; echo err >&2; : body-secret; exit 4")
    result, outputs = await server.give(script=script)
    assert (result.outcome, result.reason) == (work_pb2.OUTCOME_FAILED, "exit status 4")
    assert outputs == {work_pb2.OUTPUT_STREAM_STDOUT: b"out\n", work_pb2.OUTPUT_STREAM_STDERR: b"err\n"}

    echoed, _ = await server.give(echo=work_pb2.EchoSpec(payload=b"ping"))
    assert echoed.echo.payload == b"ping"

    taken, _ = await server.give(inventory=work_pb2.InventorySpec(include_packages=True))
    assert taken.inventory.host == server.hellos[0].host

    refused, _ = await server.give(logs=work_pb2.LogsSpec(path="/etc/shadow"))
    assert refused.outcome == work_pb2.OUTCOME_REFUSED
    assert "policy logs.paths" in refused.reason

    async with asyncio.timeout(30):
        await server.measured.wait()
    assert "memory.used_bytes" in {point.metric for point in server.points}

    status, log = await running.stop()
    assert status == 0
    assert await server.goodbye
    assert [line["event"] for line in log][-1] == "agent left in order"
    told = json.dumps(log)
    assert "body-secret" not in told
    assert server.tokens[0] not in told


async def test_status_reads_beside_the_running_agent_and_a_second_one_is_refused(running: Running) -> None:
    await running.server.give(echo=work_pb2.EchoSpec(payload=b"ready"))
    found: dict[str, object] = {}
    while not found.get("connected"):  # The agent says so within a second.
        asked = await program("status", "-o", "json", f"--state={running.state}")
        found = json.loads((await asked.communicate())[0])
        assert found["running_process"] == str(running.agent.pid)
    assert found["session_epoch"] == 1
    assert found["journal"] is not None

    second = await program("run", f"--state={running.state}")
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert f"process {running.agent.pid};".encode() in errors
    assert (await running.stop())[0] == 0


async def test_run_enrols_first_where_there_is_no_identity_and_never_again(tmp_path: Path) -> None:
    async with small_server() as (server, enrolment_port, agent_port):
        for run in (1, 2):
            agent = await program(
                "run",
                f"--server=127.0.0.1:{enrolment_port}",
                f"--agent-address=127.0.0.1:{agent_port}",
                "--agent-id=web-1",
                f"--state={tmp_path / 'state'}",
                FLEETWRIGHT_JOIN_TOKEN=server.token,
            )
            try:
                echoed, _ = await server.give(echo=work_pb2.EchoSpec(payload=b"ping"))
                assert echoed.echo.payload == b"ping"
                assert len(server.tokens) == 1, f"run {run}"
            finally:
                agent.send_signal(signal.SIGTERM)
                told, errors = await agent.communicate()
            assert agent.returncode == 0, errors.decode()
            assert (b"Enrolled as" in told) is (run == 1)


async def test_large_output_arrives_whole(running: Running) -> None:
    body = "yes 0123456789abcde | head -c 4000000"
    script = work_pb2.ScriptSpec(interpreter="sh", body=body, output_limit=3_000_000)
    result, outputs = await running.server.give(script=script)
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED
    assert (result.stdout_bytes, result.discarded_bytes) == (3_000_000, 1_000_000)
    assert outputs[work_pb2.OUTPUT_STREAM_STDOUT] == (b"0123456789abcde\n" * 187_500)


def alive(pid: int) -> bool:
    """Tell whether ``pid`` runs; one that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def started_script(running: Running, folder: Path) -> tuple[int, asyncio.Task[Result]]:
    """Start a script that runs for minutes; return its process id and its result to come."""
    pid_file, pipe = folder / "pid", folder / "started"
    os.mkfifo(pipe)
    body = f"echo $$ > {pid_file}; : > {pipe}; sleep 600"
    given = asyncio.create_task(running.server.give(script=work_pb2.ScriptSpec(interpreter="sh", body=body)))
    # Opening the reading end waits for the script to open the other one.
    os.close(await asyncio.to_thread(os.open, pipe, os.O_RDONLY))
    return int(await asyncio.to_thread(pid_file.read_text)), given


async def test_a_stop_ends_what_runs(running: Running, tmp_path: Path) -> None:
    script, given = await started_script(running, tmp_path)
    assert (await running.stop())[0] == 0
    assert not alive(script)
    given.cancel()
    await asyncio.gather(given, return_exceptions=True)


async def test_a_killed_agent_reports_the_interruption_and_ends_what_it_left(
    running: Running, tmp_path: Path
) -> None:
    script, given = await started_script(running, tmp_path)
    running.agent.kill()
    await running.agent.communicate()
    assert alive(script)

    running.agent = await program("run", f"--state={running.state}")
    result, _ = await given
    assert result.outcome == work_pb2.OUTCOME_INTERRUPTED
    assert not alive(script)
    assert list(await asyncio.to_thread(os.listdir, running.state / "work")) == []
    assert len(running.server.hellos) == 2
    assert (await running.stop())[0] == 0
