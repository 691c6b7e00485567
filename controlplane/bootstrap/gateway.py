"""The role ``gateway``: agents' sessions and their three streams."""

from __future__ import annotations

from controlplane.bootstrap import policies
from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.rooms import Rooms
from controlplane.schedules import Schedule
from controlplane.sessions.handler import AgentHandler
from controlplane.sessions.heartbeats import Heartbeats
from controlplane.sessions.registry import Ending, Registry, revoked
from controlplane.sessions.telemetry_streams import TelemetryStreams
from controlplane.sessions.upkeep import Upkeep
from controlplane.sessions.work_streams import WorkStreams
from controlplane.transport.listeners import Listeners


class Gateway:
    """Holds the sessions of ``registry``."""

    def __init__(self, engines: Engines, rooms: Rooms, registry: Registry) -> None:
        settings, writer, clock = engines.settings, engines.writer, engines.clock
        self._settings = settings
        self._rooms = rooms
        self.registry = registry
        self.policy = policies.session_policy(settings)
        self.heartbeats = Heartbeats(registry, writer, rooms.identity, rooms.tasks, clock, self.policy)
        self.upkeep = Upkeep(registry, rooms.agents, clock, self.policy, policies.health_limits(settings))
        self._handler = AgentHandler(
            self.heartbeats,
            WorkStreams(registry, writer, rooms.tasks, clock, self.policy, engines.metrics),
            TelemetryStreams(registry, writer, rooms.telemetry, clock, self.policy),
            rooms.identity,
        )
        rooms.identity.after_revoke.append(lambda revocation: self._close_session(revocation.agent_id))

    def serve_on(self, listeners: Listeners) -> None:
        """Serve on the listener for agents."""
        self._handler.add_to(listeners.agents.server)

    def schedules(self) -> list[Schedule]:
        """Return what is done for the sessions of this process."""
        settings = self._settings
        return [
            Schedule("beats", settings.last_seen_flush, self.upkeep.flush_beats),
            Schedule("health", settings.presence_sweep, self.upkeep.check_health),
            Schedule("wake", settings.tasks_sweep, self._rooms.tasks.wake_waiting),
        ]

    def _close_session(self, agent_id: str) -> None:
        session = self.registry.get(agent_id)
        if session is not None:
            session.end(Ending(0, revoked(agent_id)))
