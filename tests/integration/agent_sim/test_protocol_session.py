"""The lifeline: Hello, beats, Goodbye, and what follows from each way in which a session ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2
from google.protobuf.duration_pb2 import Duration

from agent_sim.protocol.errors import (
    EnrollmentRequiredError,
    IdentityError,
    ProtocolVersionError,
    SessionReplacedError,
)
from agent_sim.protocol.identity import AgentIdentity, MemoryIdentityStore
from agent_sim.protocol.journal import MemoryJournal
from tests.integration.agent_sim.protocol_authority import Authority
from tests.integration.agent_sim.protocol_server import ScriptedServer, acknowledge, echo
from tests.integration.agent_sim.running_agent import RunningAgent

Start = Callable[..., RunningAgent]


async def test_an_agent_says_hello_beats_and_says_goodbye(server: ScriptedServer, start: Start) -> None:
    agent = start()
    peer, hello = await server.welcome(heartbeat=timedelta(milliseconds=5))
    assert (hello.protocol_version, hello.session_nonce) == (1, b"")
    assert hello.journal_id == agent.journal.journal_id
    for sequence in (1, 2, 3):
        assert (await peer.next()).beat.sequence == sequence
        answer = agent_service_pb2.BeatAcknowledged(sequence=sequence)
        peer.send(agent_service_pb2.HeartbeatResponse(beat_acknowledged=answer))
    agent.stop.set()
    assert (await peer.half_closed())[-1].HasField("goodbye")
    await agent.ended()


async def test_nothing_of_an_agent_is_left_after_it_was_stopped(server: ScriptedServer, start: Start) -> None:
    agent = start()
    peer, _ = await server.welcome()
    await server.open_tasks(peer)
    assert len(_tasks_of_the_engine()) > 1
    await agent.leave()
    await asyncio.sleep(0)
    assert _tasks_of_the_engine() == []


def _tasks_of_the_engine() -> list[asyncio.Task[Any]]:
    coroutines = {task: cast(Any, task.get_coro()) for task in asyncio.all_tasks()}
    return [task for task, coro in coroutines.items() if "agent_sim/protocol" in coro.cr_code.co_filename]


async def test_the_nonce_is_stored_before_anything_else_is_done(server: ScriptedServer, start: Start) -> None:
    class SlowJournal(MemoryJournal):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.allowed = asyncio.Event(), asyncio.Event()

        async def store_nonce(self, nonce: bytes) -> None:
            self.asked.set()
            await self.allowed.wait()
            await super().store_nonce(nonce)

    journal = SlowJournal()
    start(journal, answer_within=timedelta(hours=1))
    peer, _ = await server.welcome(heartbeat=timedelta(milliseconds=1))
    available = agent_service_pb2.HeartbeatResponse(work_available=agent_service_pb2.WorkAvailable())
    peer.send(available)
    await journal.asked.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert server.tasks.empty()
    assert peer._received.empty()
    journal.allowed.set()
    await server.next_tasks()
    assert journal.nonce == server.nonces[-1]


async def test_the_next_hello_shows_the_nonce_of_the_last_welcome(
    server: ScriptedServer, start: Start
) -> None:
    start()
    first, _ = await server.welcome()
    first.end()
    _, hello = await server.welcome()
    assert hello.session_nonce == server.nonces[0]


async def test_an_agent_that_is_told_to_wait_comes_back_on_the_same_connection(
    server: ScriptedServer, start: Start
) -> None:
    start()
    peer = await server.next_heartbeat()
    await peer.next()
    connection = peer.connection
    peer.fail(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", timedelta(milliseconds=10))
    again = await server.next_heartbeat()
    assert again.connection == connection


async def test_an_agent_comes_back_when_the_server_said_and_not_by_its_own_backoff(
    server: ScriptedServer, start: Start
) -> None:
    # Its own first delay would be anything up to an hour; slots and Reconnect say a few milliseconds.
    start(backoff_base=timedelta(hours=1), backoff_cap=timedelta(hours=1))
    connections = []
    for _ in range(3):
        peer = await server.next_heartbeat()
        await peer.next()
        connections.append(peer.connection)
        peer.fail(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", timedelta(milliseconds=5))
    peer, _ = await server.welcome()
    assert {*connections, peer.connection} == {peer.connection}, "the handshake is the dear part"
    reconnect = agent_service_pb2.Reconnect(
        after=Duration(nanos=5_000_000), reason=agent_service_pb2.RECONNECT_REASON_DRAINING
    )
    peer.send(agent_service_pb2.HeartbeatResponse(reconnect=reconnect))
    again, _ = await server.welcome()
    assert again.connection != peer.connection, "another process may answer there"


async def test_an_agent_that_is_sent_away_leaves_in_order_and_comes_back(
    server: ScriptedServer, start: Start
) -> None:
    start()
    peer, _ = await server.welcome()
    reconnect = agent_service_pb2.Reconnect(
        after=Duration(nanos=1000), reason=agent_service_pb2.RECONNECT_REASON_DRAINING
    )
    peer.send(agent_service_pb2.HeartbeatResponse(reconnect=reconnect))
    assert (await peer.half_closed())[-1].HasField("goodbye")
    _, hello = await server.welcome()
    assert hello.session_nonce == server.nonces[0]


async def test_a_stale_session_is_answered_by_a_new_hello(server: ScriptedServer, start: Start) -> None:
    start()
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    tasks.fail(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STALE")
    await peer.half_closed()
    again, _ = await server.welcome()
    assert again.connection == peer.connection
    _, opening = await server.open_tasks(again)
    assert opening.session_epoch == 2


async def test_an_agent_stops_when_a_copy_took_over(server: ScriptedServer, start: Start) -> None:
    agent = start()
    peer, _ = await server.welcome()
    reconnect = agent_service_pb2.Reconnect(reason=agent_service_pb2.RECONNECT_REASON_SESSION_REPLACED)
    peer.send(agent_service_pb2.HeartbeatResponse(reconnect=reconnect))
    with pytest.raises(SessionReplacedError):
        await agent.ended()


async def test_an_agent_whose_identity_is_refused_asks_to_be_enrolled_again(
    server: ScriptedServer, start: Start
) -> None:
    agent = start(identity_tries=2)
    for _ in range(2):
        peer = await server.next_heartbeat()
        await peer.next()
        peer.fail(grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_REVOKED")
    with pytest.raises(EnrollmentRequiredError, match=r"agent a1 \(CERTIFICATE_REVOKED\): enrol it again"):
        await agent.ended()


async def test_an_agent_whose_protocol_is_refused_stops(server: ScriptedServer, start: Start) -> None:
    agent = start()
    peer = await server.next_heartbeat()
    await peer.next()
    peer.fail(grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VERSION_UNSUPPORTED")
    with pytest.raises(ProtocolVersionError):
        await agent.ended()


async def test_an_agent_without_identity_says_so(server: ScriptedServer, start: Start) -> None:
    agent = start(identities=MemoryIdentityStore())
    with pytest.raises(EnrollmentRequiredError, match="enrol it first"):
        await agent.ended()


async def test_a_dead_address_is_passed_over(server: ScriptedServer, start: Start) -> None:
    start(addresses=("127.0.0.1:1", server.address))
    await server.welcome()


async def test_a_renewed_certificate_takes_over_while_work_goes_on(
    server: ScriptedServer, start: Start, authority: Authority
) -> None:
    old = authority.identity("a1", server.address, renew_after=timedelta(milliseconds=300))
    agent = start(identities=MemoryIdentityStore(old))
    first, _ = await server.welcome()
    tasks, _ = await server.open_tasks(first)
    tasks.send(echo("t1", payload=b"hold"))
    assert (await tasks.next()).accepted.attempt_id == "t1"
    second, hello = await server.welcome()
    assert hello.session_nonce == server.nonces[0]
    assert second.serial != first.serial == old.serial_number
    await first.half_closed()
    renewed = agent.identities.current()
    assert renewed is not None
    assert renewed.serial_number == second.serial
    tasks, opening = await server.open_tasks()
    assert [entry.attempt_id for entry in opening.journal] == ["t1"]
    agent.host.let_go.set()
    assert (await tasks.next()).finished.attempt_id == "t1"
    tasks.send(acknowledge("t1"))
    assert (server.renewals, agent.host.ran) == (1, ["t1"])
    await agent.leave()


async def test_a_next_identity_that_the_server_has_seen_is_found_again(
    server: ScriptedServer, start: Start, authority: Authority
) -> None:
    current, following = (authority.identity("a1", server.address) for _ in range(2))
    store = MemoryIdentityStore(current)
    store.save_next(following)
    start(identities=store)
    peer, _ = await server.welcome(heartbeat=timedelta(milliseconds=1))
    assert peer.serial == following.serial_number
    await peer.next()
    assert (store.current(), store.next()) == (following, None)


async def test_an_agent_whose_new_welcome_is_lost_comes_back_with_its_new_certificate(
    server: ScriptedServer, start: Start, authority: Authority
) -> None:
    old = authority.identity("a1", server.address, renew_after=timedelta(0))
    agent = start(identities=MemoryIdentityStore(old))
    first, _ = await server.welcome()
    second = await server.next_heartbeat()
    await second.next()
    reconnect = agent_service_pb2.Reconnect(reason=agent_service_pb2.RECONNECT_REASON_SESSION_REPLACED)
    first.send(agent_service_pb2.HeartbeatResponse(reconnect=reconnect))
    await first.half_closed()
    second.fail(grpc.StatusCode.UNAVAILABLE, "")
    third, _ = await server.welcome()
    assert third.serial == second.serial != first.serial
    third.send(agent_service_pb2.HeartbeatResponse(reconnect=reconnect))
    with pytest.raises(SessionReplacedError):
        await agent.ended()


async def test_a_stop_reaches_a_session_that_is_welcomed_after_it(
    server: ScriptedServer, start: Start, authority: Authority
) -> None:
    old = authority.identity("a1", server.address, renew_after=timedelta(milliseconds=100))
    agent = start(identities=MemoryIdentityStore(old))
    first, _ = await server.welcome()
    tasks, _ = await server.open_tasks(first)
    tasks.send(echo("t1"))
    while not (await tasks.next()).HasField("finished"):
        pass
    second = await server.next_heartbeat()
    await second.next()
    agent.stop.set()
    for _ in range(50):
        await asyncio.sleep(0)
    welcome = server.make_welcome(timedelta(seconds=30), timedelta(hours=1))
    second.send(agent_service_pb2.HeartbeatResponse(welcome=welcome))
    again, _ = await server.open_tasks()
    while not (await again.next()).HasField("finished"):
        pass
    again.send(acknowledge("t1"))
    tasks.send(acknowledge("t1"))
    assert (await second.half_closed())[-1].HasField("goodbye")
    await agent.ended()


async def test_a_renewal_that_cannot_be_stored_is_tried_again(
    server: ScriptedServer, start: Start, authority: Authority
) -> None:
    class FullStore(MemoryIdentityStore):
        def __init__(self, identity: AgentIdentity) -> None:
            super().__init__(identity)
            self.refusals = ["save_next", "promote"]

        def save_next(self, identity: AgentIdentity) -> None:
            self._refuse("save_next")
            super().save_next(identity)

        def promote(self) -> None:
            self._refuse("promote")
            super().promote()

        def _refuse(self, name: str) -> None:
            if name in self.refusals:
                self.refusals.remove(name)
                raise IdentityError("no space left")

    old = authority.identity("a1", server.address, renew_after=timedelta(0))
    store = FullStore(replace(old, not_after=old.renew_after + timedelta(seconds=1)))
    agent = start(identities=store)
    await server.welcome()
    second, _ = await server.welcome()
    second.end()
    third, _ = await server.welcome(heartbeat=timedelta(milliseconds=1))
    await third.next()
    assert (server.renewals, store.refusals) == (2, [])
    current = store.current()
    assert current is not None
    assert current.serial_number == third.serial == second.serial
    await agent.leave()


async def test_a_session_that_does_not_begin_with_welcome_is_ended_and_asked_for_again(
    server: ScriptedServer, start: Start
) -> None:
    start()
    peer = await server.next_heartbeat()
    await peer.next()
    available = agent_service_pb2.WorkAvailable()
    peer.send(agent_service_pb2.HeartbeatResponse(work_available=available))
    await server.welcome()
