"""Telemetry: within the budget, from where the server stands, gaps declared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2
from google.protobuf.duration_pb2 import Duration

from agent_sim.protocol.journal import MemoryJournal, PointRange, SQLiteJournal
from agent_sim.protocol.telemetry import SET_ASIDE_METRIC
from tests.integration.agent_sim.protocol_host import point
from tests.integration.agent_sim.protocol_server import ScriptedServer, TelemetryPeer
from tests.integration.agent_sim.running_agent import RunningAgent

Start = Callable[..., RunningAgent]


async def journal_with(count: int, **limits: int) -> MemoryJournal:
    """Return a journal with points that a former session may have sent."""
    journal = MemoryJournal(**limits)  # type: ignore[arg-type]
    await journal.append_points([point(float(value)) for value in range(1, count + 1)])
    await journal.read_points(0, count, 1 << 20)
    return journal


_BRIEF = Duration(nanos=1_000_000)
_LONG = Duration(seconds=60)


async def opened(
    server: ScriptedServer,
    last_sequence: int,
    budget: int,
    linger: Duration = _BRIEF,
    previous: tuple[int, int] | None = None,
) -> TelemetryPeer:
    """Answer a Telemetry stream; ``previous`` is the session that it names, and how far that one came."""
    peer = await server.next_telemetry()
    opening = (await peer.next()).open
    assert opening.session_epoch == server.epoch
    answer = agent_service_pb2.TelemetryOpened(last_sequence=last_sequence, budget=budget, linger=linger)
    if previous is not None:
        assert opening.previous_session_epoch == previous[0]
        answer.previous_last_sequence = previous[1]
    peer.send(agent_service_pb2.TelemetryResponse(opened=answer))
    return peer


def acknowledge(peer: TelemetryPeer, last_sequence: int, budget: int) -> None:
    answer = agent_service_pb2.TelemetryAcknowledged(last_sequence=last_sequence, budget=budget)
    peer.send(agent_service_pb2.TelemetryResponse(acknowledged=answer))


def told(batch: agent_service_pb2.TelemetryBatch) -> tuple[int, int, list[float]]:
    return batch.first_sequence, batch.dropped, [one.value for one in batch.points]


async def test_a_backlog_is_sent_in_batches_within_the_budget(server: ScriptedServer, start: Start) -> None:
    agent = start(await journal_with(7))
    await server.welcome()
    peer = await opened(server, 0, budget=4)
    assert told((await peer.next()).batch) == (1, 0, [1.0, 2.0, 3.0])
    assert told((await peer.next()).batch) == (4, 0, [4.0])
    acknowledge(peer, 4, budget=2)
    assert told((await peer.next()).batch) == (5, 0, [5.0, 6.0])
    acknowledge(peer, 6, budget=100)
    assert told((await peer.next()).batch) == (7, 0, [7.0])
    acknowledge(peer, 7, budget=100)
    await peer.half_closed()
    assert agent.journal.queued_points == 0


async def test_a_backlog_is_read_from_the_journal_by_batches(server: ScriptedServer, start: Start) -> None:
    class CountingJournal(MemoryJournal):
        reads = 0

        async def read_points(self, after: int, limit: int, max_bytes: int) -> PointRange:
            self.reads += 1
            return await super().read_points(after, limit, max_bytes)

    journal = CountingJournal()
    await journal.append_points([point(float(value)) for value in range(300)])
    start(journal)
    await server.welcome()
    peer = await opened(server, 0, budget=1000)
    for number in range(100):
        assert (await peer.next()).batch.first_sequence == 3 * number + 1
    acknowledge(peer, 300, budget=1000)
    await peer.half_closed()
    assert journal.reads <= 100 + 3


async def test_what_the_server_has_already_is_not_sent_again(server: ScriptedServer, start: Start) -> None:
    start(await journal_with(3))
    await server.welcome()
    peer = await opened(server, 2, budget=10)
    assert told((await peer.next()).batch) == (3, 0, [3.0])


async def test_what_a_full_queue_dropped_is_declared(server: ScriptedServer, start: Start) -> None:
    start(await journal_with(5, max_points=2))
    await server.welcome()
    peer = await opened(server, 1, budget=10)
    assert told((await peer.next()).batch) == (4, 2, [4.0, 5.0])


async def test_after_a_refused_gap_it_goes_on_from_where_the_server_stands(
    server: ScriptedServer, start: Start
) -> None:
    start(await journal_with(2))
    await server.welcome()
    peer = await opened(server, 0, budget=10)
    await peer.next()
    peer.fail(grpc.StatusCode.FAILED_PRECONDITION, "SEQUENCE_GAP")
    peer = await opened(server, 1, budget=10)
    assert told((await peer.next()).batch) == (2, 0, [2.0])


async def test_numbering_goes_on_behind_a_server_that_knows_more(
    server: ScriptedServer, start: Start
) -> None:
    agent = start(await journal_with(2))
    await server.welcome()
    peer = await opened(server, 40, budget=10)
    await peer.half_closed()
    assert agent.journal.queued_points == 0
    await agent.journal.append_points([point(9.0)])
    assert (await agent.journal.read_points(0, 10, 1 << 20)).first_sequence == 41


async def test_points_that_were_refused_are_sent_behind_those_of_a_copy(
    server: ScriptedServer, start: Start
) -> None:
    start(await journal_with(3))
    await server.welcome()
    peer = await opened(server, 0, budget=10)
    assert told((await peer.next()).batch) == (1, 0, [1.0, 2.0, 3.0])
    before = server.epoch
    peer.fail(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STALE")
    await server.welcome()
    peer = await opened(server, 6, budget=10, previous=(before, 1))
    assert told((await peer.next()).batch) == (7, 0, [2.0, 3.0])


@pytest.mark.parametrize("lost", [True, False])
async def test_unacknowledged_points_survive_the_session(
    server: ScriptedServer, start: Start, lost: bool
) -> None:
    start(await journal_with(2))
    session, _ = await server.welcome()
    peer = await opened(server, 0, budget=10)
    await peer.next()
    session.end() if lost else peer.end()
    if lost:
        await server.welcome()
    peer = await opened(server, 0, budget=10)
    assert told((await peer.next()).batch) == (1, 0, [1.0, 2.0])


async def test_a_damaged_journal_that_was_set_aside_is_told_of_once(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"\xa5" * 8_192)
    agent = start(SQLiteJournal(path, reserve_bytes=0))
    await server.welcome(telemetry=timedelta(milliseconds=1))
    peer = await opened(server, 0, budget=100, linger=_LONG)
    first = (await peer.next()).batch.points
    assert [(one.metric, one.value) for one in first] == [(SET_ASIDE_METRIC, 1.0)]
    acknowledge(peer, 1, budget=100)
    agent.host.points = [point(7.0)]
    assert told((await peer.next()).batch) == (2, 0, [7.0])
    await agent.kill()
