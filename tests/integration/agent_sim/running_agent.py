"""An agent that runs in a test."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

from agent_sim.protocol.agent import Agent
from agent_sim.protocol.clock import Clock, SystemClock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.identity import MemoryIdentityStore
from agent_sim.protocol.journal import Journal
from tests.integration.agent_sim.protocol_host import HeldHost
from tests.integration.agent_sim.protocol_server import PATIENCE

QUICK = timedelta(milliseconds=20)


class RunningAgent:
    def __init__(
        self,
        host: HeldHost,
        journal: Journal,
        identities: MemoryIdentityStore,
        clock: Clock | None = None,
        **config: Any,
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
            AgentConfig(**(settings | config)),
            host,
            journal,
            identities,
            clock or SystemClock(),
            random.Random(1),
        )
        self.task = asyncio.create_task(agent.run(self.stop))

    async def ended(self) -> None:
        """Wait for its own end, with a limit, and raise what it raised."""
        async with asyncio.timeout(PATIENCE):
            await self.task

    async def leave(self) -> None:
        self.stop.set()
        await self.ended()

    async def kill(self) -> None:
        """End it as the end of its process would: nothing is said, nothing more is journalled."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
