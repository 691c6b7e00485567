"""The role ``api``: what administrators call, and enrolment."""

from __future__ import annotations

from controlplane.agents.handler import AgentRegistryHandler
from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.rooms import Rooms
from controlplane.identity.handler import EnrollmentServicer, EnrollmentTokenServicer, IdentityServicer
from controlplane.schedules import Schedule
from controlplane.tasks.handler import TaskHandler
from controlplane.tasks.ledger.handler import DeliveryHandler
from controlplane.telemetry.handler import TelemetryHandler
from controlplane.transport.listeners import Listeners


class Api:
    """Serves administrators, integrators and hosts that enrol."""

    def __init__(self, engines: Engines, rooms: Rooms) -> None:
        self._settings = engines.settings
        self._clock = engines.clock
        self._rooms = rooms

    def serve_on(self, listeners: Listeners) -> None:
        """Serve on the listeners for administrators and for enrolment."""
        rooms, admin = self._rooms, listeners.admin.server
        EnrollmentServicer(rooms.identity).add_to(listeners.enrollment.server)
        AgentRegistryHandler(rooms.agents).add_to(admin)
        EnrollmentTokenServicer(rooms.identity.tokens, self._clock).add_to(admin)
        IdentityServicer(rooms.identity.administrators, self._clock).add_to(admin)
        TaskHandler(rooms.tasks).add_to(admin)
        DeliveryHandler(rooms.ledger, rooms.explaining).add_to(admin)
        TelemetryHandler(rooms.telemetry).add_to(admin)
        for handler in rooms.packaging.handlers():
            handler.add_to(admin)

    def schedules(self) -> list[Schedule]:
        """Return what is done for the callers of this process."""
        administrators = self._rooms.identity.administrators
        return [Schedule("identities", self._settings.last_seen_flush, lambda _: administrators.record())]
