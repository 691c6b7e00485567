"""The real server and the real agent with short-lived certificates: does presence ever have a gap?"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetwright.v1 import agent_registry_service_pb2 as registry

from tests.support.agent_program import running_agent
from tests.support.folders import make_folder
from tests.support.process import ServerProcess, running

AGENT_ID = "soaked"


@dataclass
class Presences:
    """What a watch of one agent saw since it first came ONLINE.

    ``gaps`` says of each gap what the server said of it. A gap so short that the watch
    merged it with what followed shows by a later ``presence_time``.
    """

    online_since: int | None = None
    certificate_end: int = 0
    renewals: int = 0
    gaps: list[str] = field(default_factory=list)

    def see(self, agent: registry.Agent) -> None:
        """Take in one change."""
        online = agent.presence == registry.PRESENCE_ONLINE
        if self.online_since is None:
            if online:
                self.online_since = agent.presence_time.ToMicroseconds()
                self.certificate_end = agent.certificate_expire_time.ToMicroseconds()
            return
        since, end = agent.presence_time.ToMicroseconds(), agent.certificate_expire_time.ToMicroseconds()
        if not online:
            reason = registry.PresenceReason.Name(agent.presence_reason)
            self.gaps.append(f"{reason}: {agent.presence_detail}")
        elif since != self.online_since and not self.gaps:
            self.gaps.append("a gap too short to be seen")
        if end > self.certificate_end:
            self.renewals += 1
            self.certificate_end = end


async def soak(folder: Path, *, certificate_life: str, renewals: int | None, seconds: float) -> Presences:
    """Run server and agent in ``folder`` until so many renewals, or for so many seconds."""
    presences = Presences()
    async with (
        running(
            make_folder(folder / "data"), agent_certificate_life=certificate_life, drain_window="0"
        ) as server,
        running_agent(server, folder / "agent", AGENT_ID),
    ):
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _watch(server, presences, renewals)
    return presences


async def _watch(server: ServerProcess, presences: Presences, renewals: int | None) -> None:
    watch: Any = server.admin().agents.WatchAgents(registry.WatchAgentsRequest())
    try:
        async for change in watch:
            if change.agent.agent_id == AGENT_ID:
                presences.see(change.agent)
            if renewals is not None and presences.renewals >= renewals:
                return
    finally:
        watch.cancel()


__all__ = ["Presences", "soak"]
