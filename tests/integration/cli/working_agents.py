"""Real agents of this host, as processes: what a task of the command line really reaches."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fleetwright.v1.agent_registry_service_pb2 import PRESENCE_ONLINE

from tests.support.admin import Admin
from tests.support.in_process import LocalSite
from tests.support.process import spawn
from tests.support.site import HOST
from tests.support.streams import PATIENCE


@asynccontextmanager
async def working(site: LocalSite, admin: Admin, folder: Path, names: Sequence[str]) -> AsyncIterator[None]:
    """Run agents of these names until the end of the block; begins once all are ONLINE."""
    _, token = await admin.token(max_uses=len(names))
    changes = await admin.watch_agents("presence = ONLINE")
    processes = [
        await spawn(
            "fleetwright-agent",
            "run",
            f"--state={folder / name}",
            f"--server={HOST}:{site.ports.enrollment}",
            f"--agent-address={HOST}:{site.ports.agents}",
            f"--agent-id={name}",
            devnull=True,
            variables={"FLEETWRIGHT_JOIN_TOKEN": token},
        )
        for name in names
    ]
    try:
        await _all_online(changes, set(names))
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(process.wait() for process in processes))


async def _all_online(changes: Any, missing: set[str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while missing:
            change = await changes.read()
            if change.agent.presence == PRESENCE_ONLINE:
                missing.discard(change.agent.agent_id)
