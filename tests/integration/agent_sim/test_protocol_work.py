"""Work: journalled before it is accepted, run once, reported until it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
from fleetwright.v1 import agent_service_pb2, work_pb2
from google.protobuf.duration_pb2 import Duration

from agent_sim.protocol.journal import MemoryJournal, SQLiteJournal
from agent_sim.protocol.rules import Admission
from tests.integration.agent_sim.protocol_server import ScriptedServer, TasksPeer, acknowledge, echo
from tests.integration.agent_sim.running_agent import RunningAgent

Start = Callable[..., RunningAgent]


async def test_an_assignment_is_journalled_before_it_is_accepted(
    server: ScriptedServer, start: Start
) -> None:
    class SlowJournal(MemoryJournal):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.allowed = asyncio.Event(), asyncio.Event()

        async def add(self, assignment: agent_service_pb2.Assignment) -> Admission:
            self.asked.set()
            await self.allowed.wait()
            return await super().add(assignment)

    journal = SlowJournal()
    agent = start(journal)
    peer, _ = await server.welcome()
    tasks, opening = await server.open_tasks(peer)
    assert (opening.credits, len(opening.journal)) == (4, 0)
    tasks.send(echo("t1"))
    await journal.asked.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert tasks._received.empty()
    assert agent.host.ran == []
    journal.allowed.set()
    assert (await tasks.next()).accepted.attempt_id == "t1"
    assert (await tasks.next()).finished.result.echo.payload == b"hello"


async def test_a_duplicate_assignment_is_accepted_again_and_not_run_again(
    server: ScriptedServer, start: Start
) -> None:
    agent = start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("t1"))
    assert (await tasks.next()).accepted.attempt_id == "t1"
    assert (await tasks.next()).finished.attempt_id == "t1"
    tasks.send(echo("t1"))
    assert (await tasks.next()).accepted.attempt_id == "t1"
    assert (await tasks.next()).finished.attempt_id == "t1"
    assert agent.host.ran == ["t1"]


async def test_a_second_attempt_of_an_unreported_task_is_not_run_but_asked_for_again(
    server: ScriptedServer, start: Start
) -> None:
    agent = start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("t1", task="tasks/x", payload=b"hold"))
    assert (await tasks.next()).accepted.attempt_id == "t1"
    tasks.send(echo("t2", task="tasks/x"))
    tasks.send(echo("other"))
    assert (await tasks.next()).accepted.attempt_id == "other"
    assert (await tasks.next()).finished.attempt_id == "other"
    agent.host.let_go.set()
    assert (await tasks.next()).finished.attempt_id == "t1"
    assert agent.host.ran == ["t1", "other"]
    tasks.send(acknowledge("other"))
    tasks.send(acknowledge("t1"))
    await tasks.half_closed()
    tasks, opening = await server.open_tasks()
    assert list(opening.journal) == []
    tasks.send(echo("t2", task="tasks/x"))
    assert (await tasks.next()).accepted.attempt_id == "t2"


async def test_a_result_is_sent_on_every_stream_until_it_is_acknowledged(
    server: ScriptedServer, start: Start
) -> None:
    agent = start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("t1", payload=b"output"))
    first = await _until_finished(tasks)
    assert first[-1].finished.result.stdout_bytes == 10
    peer.end()
    await server.welcome()
    tasks, opening = await server.open_tasks()
    assert [(entry.attempt_id, entry.finished) for entry in opening.journal] == [("t1", True)]
    again = await _until_finished(tasks)
    assert b"".join(message.chunk.data for message in again[:3]) == b"0123456789"
    assert [message.chunk.offset for message in again[:3]] == [0, 4, 8]
    assert again[3].finished == first[-1].finished
    tasks.send(acknowledge("t1"))
    agent.stop.set()
    await tasks.half_closed()
    await agent.ended()
    assert agent.journal.unreported == 0


async def test_chunks_keep_the_limit_and_go_ahead_of_the_result(server: ScriptedServer, start: Start) -> None:
    start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("t1", payload=b"output"))
    kinds = [message.WhichOneof("message") for message in await _until_finished(tasks)]
    assert kinds[0] == "accepted"
    assert [kind for kind in kinds[1:-1] if kind != "progress"] == ["chunk"] * 3


async def _until_finished(tasks: TasksPeer) -> list[agent_service_pb2.TasksRequest]:
    seen = [await tasks.next()]
    while not seen[-1].HasField("finished"):
        seen.append(await tasks.next())
    return seen


async def test_a_killed_agent_reports_what_ran_as_interrupted_and_runs_what_waited(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    journal = SQLiteJournal(tmp_path / "journal.db")
    agent = start(journal, concurrency=1)
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("ran", payload=b"hold"))
    assert await agent.host.running.get() == "ran"
    tasks.send(echo("waited"))
    assert {(await tasks.next()).accepted.attempt_id for _ in range(2)} == {"ran", "waited"}
    await agent.kill()
    await journal.close()

    reopened = SQLiteJournal(tmp_path / "journal.db")
    assert reopened.journal_id == journal.journal_id
    assert reopened.boot_id != journal.boot_id
    second = start(reopened)
    _, hello = await server.welcome()
    assert hello.session_nonce == server.nonces[0]
    tasks, _ = await server.open_tasks()
    results: dict[str, work_pb2.Outcome.ValueType] = {}
    while len(results) < 2:
        message = await tasks.next()
        if message.HasField("finished"):
            results[message.finished.attempt_id] = message.finished.result.outcome
    assert results == {"ran": work_pb2.OUTCOME_INTERRUPTED, "waited": work_pb2.OUTCOME_SUCCEEDED}
    assert second.host.ran == ["waited"]
    for attempt_id in results:
        tasks.send(acknowledge(attempt_id))
    await second.leave()
    assert reopened.entries() == []
    await reopened.close()


async def test_a_running_attempt_is_cancelled_and_an_unknown_one_is_answered(
    server: ScriptedServer, start: Start
) -> None:
    agent = start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("t1", payload=b"hold"))
    await agent.host.running.get()
    await tasks.next()
    for attempt_id in ("t1", "nobody"):
        cancel = agent_service_pb2.AttemptCancel(attempt_id=attempt_id)
        tasks.send(agent_service_pb2.TasksResponse(cancel=cancel))
    outcomes = {}
    for _ in range(2):
        finished = (await tasks.next()).finished
        outcomes[finished.attempt_id] = finished.result.outcome
    assert outcomes == dict.fromkeys(("t1", "nobody"), work_pb2.OUTCOME_CANCELLED)


async def test_an_attempt_is_ended_at_its_run_limit(server: ScriptedServer, start: Start) -> None:
    start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    assignment = echo("t1", payload=b"hold")
    assignment.assignment.run_limit.CopyFrom(Duration(nanos=1_000_000))
    tasks.send(assignment)
    await tasks.next()
    assert (await tasks.next()).finished.result.outcome == work_pb2.OUTCOME_TIMED_OUT


async def test_a_stopped_agent_reports_its_running_work_before_it_leaves(
    server: ScriptedServer, start: Start
) -> None:
    agent = start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.send(echo("t1", payload=b"hold"))
    await agent.host.running.get()
    await tasks.next()
    agent.stop.set()
    assert (await tasks.next()).finished.result.outcome == work_pb2.OUTCOME_INTERRUPTED
    tasks.send(acknowledge("t1"))
    await tasks.half_closed()
    assert (await peer.half_closed())[-1].HasField("goodbye")
    await agent.ended()


async def test_credits_come_back_as_results_are_acknowledged(server: ScriptedServer, start: Start) -> None:
    start(concurrency=2)
    peer, _ = await server.welcome()
    tasks, opening = await server.open_tasks(peer)
    assert opening.credits == 2
    tasks.send(echo("t1"))
    await tasks.next()
    await tasks.next()
    tasks.send(acknowledge("t1"))
    assert (await tasks.next()).credits.credits == 1


async def test_an_idle_stream_is_half_closed_after_its_linger(server: ScriptedServer, start: Start) -> None:
    agent = start()
    peer, _ = await server.welcome()
    available = agent_service_pb2.WorkAvailable()
    peer.send(agent_service_pb2.HeartbeatResponse(work_available=available))
    tasks = await server.next_tasks()
    opened = agent_service_pb2.TasksOpened(linger=Duration(nanos=1_000_000))
    tasks.send(agent_service_pb2.TasksResponse(opened=opened))
    await tasks.half_closed()
    tasks, _ = await server.open_tasks(peer)
    assert agent.journal.state("t1") is None
    tasks.send(echo("t1"))
    assert (await tasks.next()).accepted.attempt_id == "t1"
    assert agent.journal.state("t1") is not None


async def test_what_an_earlier_process_left_begins_when_the_server_has_said_that_it_wants_it(
    server: ScriptedServer, start: Start
) -> None:
    journal = MemoryJournal()
    for name in ("wanted", "unwanted"):
        await journal.add(echo(name).assignment)
    agent = start(journal)
    await server.welcome()
    tasks = await server.next_tasks()
    assert {entry.attempt_id for entry in (await tasks.next()).open.journal} == {"wanted", "unwanted"}
    for _ in range(50):
        await asyncio.sleep(0)
    assert agent.host.ran == []
    opened = agent_service_pb2.TasksOpened(linger=Duration(seconds=60), unwanted=["unwanted"])
    tasks.send(agent_service_pb2.TasksResponse(opened=opened))
    outcomes: dict[str, work_pb2.Outcome.ValueType] = {}
    while len(outcomes) < 2:
        finished = (await tasks.next()).finished
        outcomes[finished.attempt_id] = finished.result.outcome
    assert outcomes == {"wanted": work_pb2.OUTCOME_SUCCEEDED, "unwanted": work_pb2.OUTCOME_CANCELLED}
    assert agent.host.ran == ["wanted"]


async def test_after_a_refusal_results_go_one_by_one_and_what_runs_is_heard_again_afterwards(
    server: ScriptedServer, start: Start
) -> None:
    agent = start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    for name in ("a", "b"):
        tasks.send(echo(name, payload=b"output"))
    seen = 0
    while seen < 2:
        seen += (await tasks.next()).HasField("finished")
    tasks.fail(grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")

    tasks, opening = await server.open_tasks()
    assert [entry.finished for entry in opening.journal] == [True, True]
    first = (await _until_finished(tasks))[-1].finished
    for _ in range(50):
        await asyncio.sleep(0)
    assert tasks._received.empty(), "the other one waits until this one is answered"
    tasks.send(acknowledge(first.attempt_id))
    second = (await _until_finished(tasks))[-1].finished
    assert {first.attempt_id, second.attempt_id} == {"a", "b"}
    tasks.fail(grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")

    # Alone under way, and refused: the same outcome without its detail and its output.
    tasks, _ = await server.open_tasks()
    reduced = await tasks.next()
    assert reduced.finished.attempt_id == second.attempt_id
    assert reduced.finished.result.outcome == second.result.outcome
    assert reduced.finished.result.WhichOneof("detail") is None
    assert reduced.finished.result.discarded_bytes == 10
    tasks.fail(grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")

    # Refused in that form too: it is given up, and work goes on as before.
    tasks, opening = await server.open_tasks(peer)
    assert (len(opening.journal), opening.credits) == (0, 4)
    tasks.send(echo("c", payload=b"output"))
    kinds = [message.WhichOneof("message") for message in await _until_finished(tasks)]
    assert kinds.count("chunk") == 3
    assert agent.host.ran == ["a", "b", "c"]
