"""A host whose wall clock is wrong or jumps: what is due is decided by the server's time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fleetwright.v1 import agent_service_pb2

from agent_sim.protocol.clock import SystemClock
from tests.integration.agent_sim.protocol_server import ScriptedServer, echo
from tests.integration.agent_sim.running_agent import RunningAgent

Start = Callable[..., RunningAgent]
HOUR = timedelta(hours=1)


class WrongClock(SystemClock):
    """A wall clock that the test sets."""

    def __init__(self, offset: timedelta) -> None:
        self.offset = offset

    def now(self) -> datetime:
        return super().now() + self.offset


async def test_an_agent_whose_clock_is_behind_renews_when_the_server_says_that_it_is_time(
    server: ScriptedServer, start: Start
) -> None:
    # The certificate is to be renewed in 12 h; its end is in 24 h.
    server.time = datetime.now(UTC) + 13 * HOUR
    start(clock=WrongClock(-20 * HOUR))
    old, _ = await server.welcome()
    new, _ = await server.welcome()
    assert server.renewals == 1
    assert new.serial != old.serial
    await old.half_closed()


async def test_an_agent_whose_clock_is_ahead_does_not_renew_before_its_time(
    server: ScriptedServer, start: Start
) -> None:
    server.time = datetime.now(UTC)
    clock = WrongClock(20 * HOUR)
    start(clock=clock)
    peer, hello = await server.welcome(heartbeat=timedelta(milliseconds=5))
    assert hello.agent_time.ToDatetime(UTC) > server.time + 19 * HOUR, "the server is told of the offset"
    for number in range(1, 9):
        assert (await peer.next()).beat.sequence == number
        answer = agent_service_pb2.BeatAcknowledged(sequence=number)
        peer.send(agent_service_pb2.HeartbeatResponse(beat_acknowledged=answer))
        clock.offset = HOUR * (30 if number % 2 else -30)
    assert server.renewals == 0


async def test_what_ran_while_the_clock_was_set_back_has_not_ended_before_it_began(
    server: ScriptedServer, start: Start
) -> None:
    clock = WrongClock(timedelta(0))
    agent = start(clock=clock)
    peer, _ = await server.welcome()
    tasks, _ = await server.open_tasks(peer)
    for jump in (-5 * HOUR, 9 * HOUR):
        agent.host.let_go.clear()
        tasks.send(echo(f"t{jump}", payload=b"hold"))
        await agent.host.running.get()
        clock.offset += jump
        agent.host.let_go.set()
        assert (await tasks.next()).HasField("accepted")
        result = (await tasks.next()).finished.result
        length = result.end_time.ToDatetime() - result.start_time.ToDatetime()
        assert timedelta(0) <= length < HOUR
