"""A scripted server and agents that speak to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from protocol_authority import Authority
from protocol_host import HeldHost
from protocol_server import ScriptedServer

from agent_sim.protocol.agent import Agent
from agent_sim.protocol.clock import SystemClock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.identity import AgentIdentity, MemoryIdentityStore
from agent_sim.protocol.journal import Journal, MemoryJournal

QUICK = timedelta(milliseconds=20)


class RunningAgent:
    def __init__(
        self, host: HeldHost, journal: Journal, identities: MemoryIdentityStore, **config: Any
    ) -> None:
        self.host = host
        self.journal = journal
        self.identities = identities
        self.stop = asyncio.Event()
        settings: dict[str, Any] = {
            "agent_version": "test",
            "backoff_base": QUICK,
            "backoff_cap": QUICK,
            "renewal_jitter": 0.0,
            "stop_grace": timedelta(seconds=5),
        }
        agent = Agent(
            AgentConfig(**(settings | config)), host, journal, identities, SystemClock(), random.Random(1)
        )
        self.task = asyncio.create_task(agent.run(self.stop))

    async def leave(self) -> None:
        self.stop.set()
        await self.task

    async def kill(self) -> None:
        """End it as the end of its process would: nothing is said, nothing more is journalled."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


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
