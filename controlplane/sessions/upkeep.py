"""What sessions do on a schedule: beats written down, silence noticed, waiting work announced."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from controlplane.agents.records import LiveSession
from controlplane.agents.rules import HealthLimits, Transition
from controlplane.agents.service import AgentsService
from controlplane.clock import Clock
from controlplane.sessions.limits import SessionPolicy
from controlplane.sessions.registry import Registry

_log = structlog.get_logger(__name__)

_LATE_INTERVALS = 3
"""Beats that may be missed before an agent is late, where the interval grew with the fleet."""


class Upkeep:
    """The scheduled work of the sessions room."""

    def __init__(
        self,
        registry: Registry,
        agents: AgentsService,
        clock: Clock,
        policy: SessionPolicy,
        limits: HealthLimits,
        process_id: str,
    ) -> None:
        self._registry = registry
        self._agents = agents
        self._clock = clock
        self._policy = policy
        self._limits = limits
        self._process_id = process_id

    async def flush_beats(self) -> int:
        """Write the times of beats since the last flush with one statement; returns of how many agents."""
        fresh = [session for session in self._registry if session.last_beat > session.reported_beat]
        times = {session.agent_id: session.last_beat for session in fresh}
        await self._agents.record_beats(times)
        for session in fresh:
            session.reported_beat = times[session.agent_id]
        return len(fresh)

    async def check_health(self) -> Sequence[Transition]:
        """Move this process's agents between ONLINE, STALE and OFFLINE by their silence.

        Sessions that have a successor in another process, whose wake-up was lost, are ended.
        """
        live = {session.agent_id: LiveSession(session.epoch, session.last_beat) for session in self._registry}
        found = await self._agents.health_sweep(
            self._clock.now(), self._process_id, live, self._grown_limits()
        )
        self._registry.outlive(found.outlived)
        for transition in found.moved:
            _log.info(
                "presence changed",
                agent=transition.agent_id,
                session=transition.epoch,
                presence=transition.after.name,
                reason=transition.reason.name,
                detail=transition.detail,
            )
        return found.moved

    def _grown_limits(self) -> HealthLimits:
        interval = self._policy.interval(len(self._registry))
        late = max(self._limits.stale_after, interval * _LATE_INTERVALS)
        gone = max(self._limits.offline_after, late + interval + timedelta(seconds=1))
        return HealthLimits(interval, late, gone)
