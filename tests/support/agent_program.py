"""The agent's program as its owner starts it: enrolled with a server, then running until the block ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fleetwright.v1 import agent_registry_service_pb2 as registry

from tests.support.process import spawn
from tests.support.site import HOST, Site
from tests.support.streams import until


@asynccontextmanager
async def running_agent(site: Site, state: Path, agent_id: str) -> AsyncIterator[None]:
    """Enrol an agent with its state in ``state``, and run it for the block."""
    _, token = await site.admin().token()
    enrolling = await spawn(
        "fleetwright-agent",
        "enroll",
        f"--server={HOST}:{site.ports.enrollment}",
        f"--agent-address={HOST}:{site.ports.agents}",
        f"--agent-id={agent_id}",
        f"--state={state}",
        variables={"FLEETWRIGHT_JOIN_TOKEN": token},
    )
    _, errors = await enrolling.communicate()
    if enrolling.returncode:
        raise AssertionError(f"the agent was not enrolled: {errors.decode()}")
    agent = await spawn("fleetwright-agent", "run", f"--state={state}", devnull=True)
    try:
        yield
    finally:
        if agent.returncode is None:
            agent.terminate()
        await agent.communicate()


async def online(site: Site, agent_id: str) -> None:
    """Return once the server says that the agent is there."""
    watch: Any = site.admin().agents.WatchAgents(
        registry.WatchAgentsRequest(filter=f'agent_id = "{agent_id}" AND presence = ONLINE')
    )
    await until(watch, lambda change: change.agent.agent_id == agent_id)
    watch.cancel()
