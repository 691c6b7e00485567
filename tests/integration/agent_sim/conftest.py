"""A scripted server and agents that speak to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from agent_sim.protocol.identity import AgentIdentity, MemoryIdentityStore
from agent_sim.protocol.journal import Journal, MemoryJournal
from tests.integration.agent_sim.protocol_authority import Authority
from tests.integration.agent_sim.protocol_host import HeldHost
from tests.integration.agent_sim.protocol_server import ScriptedServer
from tests.integration.agent_sim.running_agent import RunningAgent


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest_asyncio.fixture
async def server(authority: Authority) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer(authority)
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
def identity(server: ScriptedServer, authority: Authority) -> AgentIdentity:
    return authority.identity("a1", server.address)


@pytest_asyncio.fixture
async def start(identity: AgentIdentity) -> AsyncIterator[Callable[..., RunningAgent]]:
    """Start an agent; every agent left over at the end is killed."""
    started: list[RunningAgent] = []

    def begin(
        journal: Journal | None = None, identities: MemoryIdentityStore | None = None, **config: Any
    ) -> RunningAgent:
        agent = RunningAgent(
            HeldHost(), journal or MemoryJournal(), identities or MemoryIdentityStore(identity), **config
        )
        started.append(agent)
        return agent

    yield begin
    for agent in started:
        await agent.kill()
