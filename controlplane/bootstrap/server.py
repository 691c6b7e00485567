"""A server: its engines, rooms and roles put together, started, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import structlog

from controlplane.bootstrap import policies
from controlplane.bootstrap.api import Api
from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.gateway import Gateway
from controlplane.bootstrap.packaging import Stages
from controlplane.bootstrap.part import Part
from controlplane.bootstrap.rooms import Rooms
from controlplane.bootstrap.worker import Worker
from controlplane.clock import Clock, SystemClock
from controlplane.errors import ServiceError
from controlplane.identity.service import DENIALS
from controlplane.observability.loop_lag import measure_loop_lag
from controlplane.processes.handler import Facts, ServerHandler
from controlplane.schedules import Leases, Schedule, Schedules
from controlplane.settings import Role, Settings
from controlplane.storage import inspection
from controlplane.transport import addresses
from controlplane.transport.listeners import Listeners, Ports
from controlplane.transport.methods import Listener
from controlplane.trust.layout import ServerTrust, load
from controlplane.trust.setup import refresh_server

_log = structlog.get_logger(__name__)

_DENIALS_POLL = timedelta(seconds=5)
"""A lost wake-up delays by at most this what a revocation ends in another process."""

LISTENERS = {
    Role.GATEWAY: (Listener.AGENTS,),
    Role.API: (Listener.ADMIN, Listener.ENROLLMENT),
    Role.WORKER: (),
}
"""Which ports with TLS a role has; every process has the one of probes."""


class Server:
    """The roles that the settings give to this process, on the site's database.

    Made and run on one event loop. ``start`` returns the ports once everything listens,
    ``stop`` drains. ``part`` is the process's place under a supervisor, ``stages`` are run in the place
    of the factory's own. What is not this process's role is there all the same, and idle: it listens on
    nothing and runs no schedule.
    """

    def __init__(
        self,
        settings: Settings,
        trust: ServerTrust,
        clock: Clock | None = None,
        part: Part | None = None,
        stages: Stages | None = None,
    ) -> None:
        self._chains = trust.agents_chain_pem, trust.operators_chain_pem
        self.engines = Engines(settings, trust, clock or SystemClock(), part)
        self.rooms = Rooms(self.engines, stages)
        self.gateway = Gateway(self.engines, self.rooms)
        self.api = Api(self.engines, self.rooms)
        self.worker = Worker(self.engines, self.rooms)
        self._background: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()
        """Set when a part without which nothing works has ended by itself."""
        self.listeners = Listeners(
            settings.bind_host,
            settings.health_bind_host,
            Ports(settings.agents_port, settings.admin_port, settings.enrollment_port, settings.health_port),
            material=policies.material(trust),
            trust_domain=trust.trust_domain,
            clock=self.engines.clock,
            metrics=self.engines.metrics,
            denied=self.rooms.identity.is_denied,
            seen=self.rooms.identity.administrators.seen,
            limits=policies.limits(settings),
            serves=[listener for role in settings.roles for listener in LISTENERS[role]],
            shared_agents_port=part is not None,
        )
        self.gateway.serve_on(self.listeners)
        self.api.serve_on(self.listeners)
        schedules = self._schedules_of_roles()
        leases = Leases(
            self.engines.process.process_id,
            {schedule.name: schedule.every for schedule in schedules if schedule.once},
        )
        self.rooms.member.takes_part.append(leases.renew)
        self.rooms.member.inherits.append(leases.free)
        self.rooms.member.leaves.append(leases.give_up)
        self.schedules = Schedules(schedules, self._schedule_failed, leases)

    def _schedules_of_roles(self) -> list[Schedule]:
        settings = self.engines.settings
        of_role = {
            Role.GATEWAY: self.gateway.schedules,
            Role.API: self.api.schedules,
            Role.WORKER: self.worker.schedules,
        }
        return [
            *(schedule for role in settings.roles for schedule in of_role[role]()),
            Schedule("server certificates", settings.retention_sweep, lambda _: self._refresh_certificates()),
        ]

    async def start(self) -> Ports:
        """Bring up everything and return the bound ports. Raises ``StartRefused``."""
        engines = self.engines
        self._begin("writer", engines.writer.run())
        self._begin("observations", self.gateway.observations.run())
        self._begin("loop lag", measure_loop_lag(engines.metrics, observe=self._observe_lag))
        if engines.notifications is not None:
            self._begin("wake-ups", engines.notifications.run())
            self._begin("denials", self._follow_denials())
        try:
            await self.rooms.identity.load()
            closed = await self.rooms.member.join()
            await self._serve_info()
            if Role.WORKER in engines.settings.roles:
                await self.worker.measure()
            ports = await self.listeners.open()
            await self.rooms.member.told(self._addresses(ports))
        except BaseException:
            await self.listeners.close(timedelta())
            await self._end_background()
            raise
        self._begin("lease", self.rooms.member.run())
        if Role.WORKER in engines.settings.roles:
            self._begin("pipelines", self.worker.packaging.run())
        self.schedules.start()
        await self.listeners.health.serving()
        # Of several parts, their supervisor says that the server serves.
        event = "part serving" if engines.process.part else "serving"
        _log.info(event, **self._said(ports), stale=closed)
        return ports

    def _said(self, ports: Ports) -> dict[str, object]:
        shown = {name: getattr(ports, name) for name in Ports.__slots__ if getattr(ports, name)}
        roles = self.engines.settings.roles
        return shown if len(roles) == len(Role) else {"roles": [role.value for role in roles], **shown}

    def _addresses(self, ports: Ports) -> dict[str, str]:
        settings = self.engines.settings
        found = {
            name: addresses.join(settings.bind_host, getattr(ports, name))
            for name in ("agents", "admin", "enrollment")
            if getattr(ports, name)
        }
        return {**found, "health": addresses.join(settings.health_bind_host, ports.health)}

    async def _serve_info(self) -> None:
        engines = self.engines
        schema = await asyncio.to_thread(inspection.schema_version, engines.location)
        facts = Facts(
            engines.trust.trust_domain, engines.settings.max_agents, str(schema), engines.clock.now()
        )
        info = ServerHandler(facts, engines.clock, self.gateway.registry.__len__, self.rooms.processes)
        info.add_to(self.listeners.admin.server)

    async def stop(self) -> None:
        """Drain: let no one in, send agents away over the window, end calls, commit what is queued, close."""
        registry = self.gateway.registry
        _log.info("draining", sessions=len(registry), window=str(self.gateway.policy.drain_window))
        await self.listeners.turn_away()
        await self.gateway.heartbeats.drain()
        await self.listeners.close(self.engines.settings.drain_grace)
        await self.schedules.stop()
        await self.worker.packaging.stop()
        await self.rooms.tasks.batches.stop()
        await registry.settled()
        await self.gateway.observations.flush()
        await self.engines.writer.close()
        await self._leave()
        await self._end_background()
        _log.info("stopped")

    async def _leave(self) -> None:
        try:
            await self.rooms.member.leave()
        except ServiceError as error:
            # The lease lapses by itself.
            _log.warning("the lease of this process could not be ended", error=error.message)

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._background_ended)
        self._background.append(task)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical("a part of the server ended", part=task.get_name(), exc_info=task.exception())
            self.failed.set()

    async def _end_background(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.rooms.packaging.end()
        await self.engines.database.close()

    async def _refresh_certificates(self) -> None:
        data_dir, now = self.engines.settings.data_dir, self.engines.clock.now()
        await asyncio.to_thread(refresh_server, data_dir, now)
        trust = await asyncio.to_thread(load, data_dir)
        # Another process of this folder may have been the one that made them.
        if (trust.agents_chain_pem, trust.operators_chain_pem) != self._chains:
            self._chains = trust.agents_chain_pem, trust.operators_chain_pem
            self.listeners.rotate(policies.material(trust))
            _log.info("server certificates refreshed")

    async def _follow_denials(self) -> None:
        """Learn of certificates that were revoked through other processes, and end their sessions here."""
        with self.engines.wakeups.listening(DENIALS) as listener:
            while True:
                await listener.wait(_DENIALS_POLL)
                try:
                    await self.rooms.identity.learn_denials()
                except ServiceError as error:
                    _log.warning("could not read which certificates are revoked", error=error.message)
                except Exception:  # noqa: BLE001 # learning must outlive whatever the database says
                    _log.exception("could not read which certificates are revoked")
                self.gateway.end_denied()

    def _observe_lag(self, lag: float) -> None:
        self.gateway.size(self.engines.strain(lag))

    def _schedule_failed(self, name: str) -> None:
        self.engines.metrics.schedule_failures.labels(name).inc()
