"""A disk that fills under a running agent: it stays, takes nothing, reports what it holds, and recovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest_asyncio
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.protocol.journal import SQLiteJournal
from agent_sim.protocol.telemetry import RESERVE_METRIC
from tests.integration.agent_sim.protocol_host import point
from tests.integration.agent_sim.protocol_server import PATIENCE, ScriptedServer, TasksPeer, acknowledge, echo
from tests.integration.agent_sim.running_agent import RunningAgent
from tests.unit.agent_sim.test_protocol_journal_full import RESERVE, disk, fill

__all__ = ["disk"]
Start = Callable[..., RunningAgent]


@pytest_asyncio.fixture
async def journal(disk: Path) -> AsyncIterator[SQLiteJournal]:
    made = SQLiteJournal(disk / "journal.db", reserve_bytes=RESERVE)
    yield made
    await made.close()


async def fill_up(journal: SQLiteJournal, disk: Path) -> Path:
    """Fill the disk, and the journal up to it, as telemetry would."""
    filler = fill(disk)
    while journal.has_room:
        await journal.append_points([point(1.0)] * 1_000)
    return filler


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what changes is a file, and says nothing
            await asyncio.sleep(0.01)


async def finished(tasks: TasksPeer, count: int) -> dict[str, work_pb2.AttemptResult]:
    results: dict[str, work_pb2.AttemptResult] = {}
    while len(results) < count:
        message = await tasks.next()
        if message.HasField("finished"):
            results[message.finished.attempt_id] = message.finished.result
    return results


async def test_an_agent_on_a_full_disk_stays_reports_what_it_holds_and_takes_work_again(
    server: ScriptedServer,
    start: Start,
    journal: SQLiteJournal,
    disk: Path,
) -> None:
    agent = start(journal, concurrency=3, room_interval=timedelta(milliseconds=20))
    peer, _ = await server.welcome(heartbeat=timedelta(milliseconds=10))
    tasks, opening = await server.open_tasks(peer)
    assert opening.credits == 3
    tasks.send(echo("a1", payload=b"hold"))
    tasks.send(echo("a2", payload=b"hold"))
    await agent.host.running.get()
    await agent.host.running.get()
    filler = await fill_up(journal, disk)

    # The credit that was out: work comes, and is neither accepted nor begun.
    tasks.send(echo("a3"))
    agent.host.let_go.set()
    results = await finished(tasks, 2)
    assert {name: one.outcome for name, one in results.items()} == dict.fromkeys(
        ("a1", "a2"), work_pb2.OUTCOME_SUCCEEDED
    )
    assert sorted(agent.host.ran) == ["a1", "a2"]
    for name in results:
        tasks.send(acknowledge(name))
    await until(lambda: journal.unreported == 0)
    # What was not taken is asked for on a fresh stream, without credits. It beats all the while.
    await tasks.half_closed()
    tasks, opening = await server.open_tasks()
    assert (opening.credits, len(opening.journal)) == (0, 0)
    tasks.send(echo("a3"))
    for _ in range(5):
        assert (await peer.next()).HasField("beat")
    assert not agent.task.done()

    filler.unlink()
    assert await tasks.half_closed() == []
    tasks, opening = await server.open_tasks()
    assert opening.credits == 3
    tasks.send(echo("a3"))
    assert (await tasks.next()).accepted.attempt_id == "a3"
    assert (await finished(tasks, 1))["a3"].outcome == work_pb2.OUTCOME_SUCCEEDED
    tasks.send(acknowledge("a3"))
    await agent.leave()


async def test_output_without_room_counts_as_discarded(
    server: ScriptedServer,
    start: Start,
    journal: SQLiteJournal,
    disk: Path,
) -> None:
    agent = start(journal, concurrency=1)

    async def talk(assignment: agent_service_pb2.Assignment, reporter: object) -> work_pb2.AttemptResult:
        await fill_up(journal, disk)
        for _ in range(200):
            await reporter.output(work_pb2.OUTPUT_STREAM_STDOUT, bytes(65536))  # type: ignore[attr-defined]
        return work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED, discarded_bytes=7)

    agent.host.run = talk  # type: ignore[method-assign]
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("a1"))
    result = (await finished(tasks, 1))["a1"]
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED
    assert result.discarded_bytes > 7
    assert result.stdout_bytes + result.discarded_bytes == 200 * 65536 + 7
    await agent.kill()


async def test_a_full_disk_is_told_by_telemetry(
    server: ScriptedServer,
    start: Start,
    journal: SQLiteJournal,
    disk: Path,
) -> None:
    await fill_up(journal, disk)
    agent = start(journal, room_interval=timedelta(hours=1))
    await server.welcome(telemetry=timedelta(milliseconds=1))
    await agent.host.sampled.wait()
    newest = journal._last_sequence
    found = await journal.read_points(newest - 1, 1, 1 << 20)
    async with asyncio.timeout(PATIENCE):
        while not found.points:
            newest = journal._last_sequence
            found = await journal.read_points(newest - 1, 1, 1 << 20)
    told = work_pb2.TelemetryPoint.FromString(found.points[0])
    assert told.metric == RESERVE_METRIC
    assert told.value < 1
    await agent.kill()
