"""A server that has gone silent: stopped, or behind a network that swallows one direction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from agent_sim.protocol import connection
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.connection import ChannelOptions
from tests.integration.agent_sim.protocol_server import PATIENCE, ScriptedServer
from tests.integration.agent_sim.relay import relaying
from tests.integration.agent_sim.running_agent import RunningAgent

Start = Callable[..., RunningAgent]
LONGEST_BEAT = timedelta(seconds=11)
"""The interval of a fleet of up to 10,000 agents, with its jitter."""


def test_a_stopped_server_is_noticed_within_thirty_seconds() -> None:
    options = ChannelOptions()
    assert options.keepalive_time_ms + options.ping_timeout_ms < 30_000
    assert LONGEST_BEAT + AgentConfig.answer_within < timedelta(seconds=30)


@pytest.mark.parametrize("direction", ["to_server", "to_agent"])
async def test_a_network_that_swallows_one_direction_is_noticed_by_an_unanswered_ping(
    server: ScriptedServer, start: Start, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(ChannelOptions, keepalive_time_ms=300, ping_timeout_ms=300)
    monkeypatch.setattr(connection, "ChannelOptions", quick)
    async with relaying(server.address) as relay:
        agent = start(addresses=(relay.address,))
        # No beat for half a minute: it is the ping that is not answered.
        await server.welcome(heartbeat=timedelta(seconds=30))
        await relay.connections.get()
        setattr(relay, f"swallow_{direction}", True)
        async with asyncio.timeout(PATIENCE):
            await relay.connections.get()
        setattr(relay, f"swallow_{direction}", False)
        _, hello = await server.welcome()
        assert hello.boot_id == agent.journal.boot_id
        await agent.kill()


async def test_a_server_that_answers_no_beat_is_left(server: ScriptedServer, start: Start) -> None:
    start(answer_within=timedelta(milliseconds=50))
    first, _ = await server.welcome(heartbeat=timedelta(milliseconds=10))
    assert (await first.next()).beat.sequence == 1
    second, _ = await server.welcome()
    assert second.connection != first.connection, "the connection is in doubt as well"
