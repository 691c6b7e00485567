"""The role ``gateway``: agents' sessions and their three streams."""

from __future__ import annotations

import asyncio
from time import monotonic

import structlog

from controlplane.bootstrap import policies
from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.rooms import Rooms
from controlplane.clock import to_micros
from controlplane.errors import ServiceError
from controlplane.schedules import Schedule
from controlplane.sessions.admissions import Admissions
from controlplane.sessions.handler import AgentHandler
from controlplane.sessions.heartbeats import Heartbeats
from controlplane.sessions.package_streams import PackageStreams
from controlplane.sessions.registry import Ending, Registry, revoked
from controlplane.sessions.rules.replay import Pace
from controlplane.sessions.rules.strain import Strain
from controlplane.sessions.telemetry_streams import TelemetryStreams
from controlplane.sessions.upkeep import Upkeep
from controlplane.sessions.work_streams import WorkStreams
from controlplane.tasks.ledger.observing import Observations
from controlplane.transport.listeners import Listeners

_log = structlog.get_logger(__name__)


class Gateway:
    """Holds the sessions of this process, in ``registry``."""

    def __init__(self, engines: Engines, rooms: Rooms) -> None:
        settings, writer, clock = engines.settings, engines.writer, engines.clock
        self._settings = settings
        self._rooms = rooms
        process_id = engines.process.process_id
        self.registry = registry = Registry()
        self.policy = policies.session_policy(settings)
        self._admissions = Admissions(settings.admission_target, engines.metrics)
        self._pace = Pace(settings.telemetry_rate, monotonic())
        engines.metrics.replay_rate.set_function(lambda: self._pace.rate)
        self.heartbeats = Heartbeats(
            registry, writer, rooms.identity, rooms.tasks, clock, self.policy, process_id, self._admissions
        )
        self.upkeep = Upkeep(
            registry, rooms.agents, clock, self.policy, policies.health_limits(settings), process_id
        )
        self.observations = Observations(
            writer, lambda: to_micros(clock.now()), engines.metrics.lost_observations.inc
        )
        self._handler = AgentHandler(
            self.heartbeats,
            WorkStreams(
                registry, writer, rooms.tasks, clock, self.policy, engines.metrics, self.observations
            ),
            TelemetryStreams(registry, writer, rooms.telemetry, clock, self.policy, self._pace),
            rooms.identity,
            PackageStreams(
                rooms.packaging.agent_downloads(), rooms.identity, clock, settings.slow_reader_after
            ),
        )
        self._looking: asyncio.Task[None] | None = None
        rooms.identity.after_revoke.append(lambda revocation: self._close_session(revocation.agent_id))
        engines.wakeups.on_work.append(
            lambda agent_ids, stopping: registry.wake(agent_ids, stopping=stopping)
        )
        engines.wakeups.on_sessions.append(registry.outlive)
        engines.wakeups.on_everything.append(self.look_again)
        rooms.member.after_lapse.append(self.look_again)

    def serve_on(self, listeners: Listeners) -> None:
        """Serve on the listener for agents."""
        self._handler.add_to(listeners.agents.server)

    def schedules(self) -> list[Schedule]:
        """Return what is done for the sessions of this process."""
        settings = self._settings
        return [
            Schedule("beats", settings.last_seen_flush, lambda _: self.upkeep.flush_beats()),
            Schedule("health", settings.presence_sweep, lambda _: self.upkeep.check_health()),
            Schedule("wake", settings.tasks_sweep, lambda _: self._wake_waiting()),
        ]

    def size(self, strain: Strain) -> None:
        """Size by what was measured since the last look how many are let in, and how fast they replay."""
        self._admissions.size(strain)
        self._pace.size(strain, monotonic())

    def end_denied(self) -> None:
        """End the sessions whose certificate is revoked."""
        for session in self.registry:
            if self._rooms.identity.is_denied(session.serial):
                session.end(Ending(0, revoked(session.agent_id)))

    def look_again(self) -> None:
        """Look at all sessions and at all waiting work, soon: what others told may have been lost."""
        if self._looking is None or self._looking.done():
            self._looking = self.registry.run_aside(self._look_again())

    async def _look_again(self) -> None:
        try:
            await self.upkeep.check_health()
            await self._wake_waiting()
        except ServiceError as error:
            # The schedules of both look again in their time.
            _log.warning("could not look again at all sessions", error=error.message)

    async def _wake_waiting(self) -> None:
        await self._rooms.tasks.wake_waiting(lambda agent_ids: self.registry.wake(agent_ids, stopping=True))

    def _close_session(self, agent_id: str) -> None:
        session = self.registry.get(agent_id)
        if session is not None:
            session.end(Ending(0, revoked(agent_id)))
