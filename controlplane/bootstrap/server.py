"""A server: its engines, rooms and roles put together, started, and ended."""

from __future__ import annotations

import asyncio

import structlog

from controlplane.bootstrap import policies
from controlplane.bootstrap.api import Api
from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.gateway import Gateway
from controlplane.bootstrap.rooms import Rooms
from controlplane.bootstrap.worker import Worker
from controlplane.clock import Clock, SystemClock
from controlplane.observability.loop_lag import measure_loop_lag
from controlplane.schedules import Schedule, Schedules
from controlplane.sessions.registry import Registry
from controlplane.settings import Settings
from controlplane.storage import inspection
from controlplane.transport.listeners import Listeners, Ports
from controlplane.transport.server_info import Facts, ServerInfoServicer
from controlplane.trust.layout import ServerTrust, load
from controlplane.trust.setup import refresh_server

_log = structlog.get_logger(__name__)


class Server:
    """All three roles in one process on the database of one data folder.

    Made and run on one event loop. ``start`` returns the ports once everything
    listens; ``stop`` drains.
    """

    def __init__(self, settings: Settings, trust: ServerTrust, clock: Clock | None = None) -> None:
        self.engines = Engines(settings, trust, clock or SystemClock())
        registry = Registry()
        self.rooms = Rooms(self.engines, registry)
        self.gateway = Gateway(self.engines, self.rooms, registry)
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
        )
        self.gateway.serve_on(self.listeners)
        self.api.serve_on(self.listeners)
        self.schedules = Schedules(
            [
                *self.gateway.schedules(),
                *self.api.schedules(),
                *self.worker.schedules(),
                Schedule("server certificates", settings.retention_sweep, self._refresh_certificates),
            ],
            self._schedule_failed,
        )

    async def start(self) -> Ports:
        """Bring up everything and return the bound ports. Raises ``StartRefused``."""
        self._background = [
            asyncio.create_task(self.engines.writer.run(), name="writer"),
            asyncio.create_task(measure_loop_lag(self.engines.metrics), name="loop lag"),
        ]
        for task in self._background:
            task.add_done_callback(self._background_ended)
        try:
            await self.rooms.identity.load()
            adopted = await self.rooms.agents.adopt_after_restart(self.engines.clock.now())
            await self._serve_info()
            await self.worker.measure()
            ports = await self.listeners.open()
        except BaseException:
            await self._end_background()
            raise
        self.schedules.start()
        await self.listeners.health.serving()
        _log.info(
            "serving",
            agents=ports.agents,
            admin=ports.admin,
            enrollment=ports.enrollment,
            health=ports.health,
            stale=len(adopted),
        )
        return ports

    async def _serve_info(self) -> None:
        engines = self.engines
        schema = await asyncio.to_thread(inspection.schema_version, engines.location)
        facts = Facts(
            engines.trust.trust_domain, engines.settings.max_agents, str(schema), engines.clock.now()
        )
        info = ServerInfoServicer(facts, engines.clock, self.gateway.registry.__len__)
        info.add_to(self.listeners.admin.server)

    async def stop(self) -> None:
        """Drain: send agents away over the window, end calls, commit what is queued, close."""
        registry = self.gateway.registry
        _log.info("draining", sessions=len(registry), window=str(self.gateway.policy.drain_window))
        await self.listeners.health.not_serving()
        await self.gateway.heartbeats.drain()
        await self.listeners.close(self.engines.settings.drain_grace)
        await self.schedules.stop()
        await registry.settled()
        await self.engines.writer.close()
        await self._end_background()
        _log.info("stopped")

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical("a part of the server ended", part=task.get_name(), exc_info=task.exception())
            self.failed.set()

    async def _end_background(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.engines.database.close()

    async def _refresh_certificates(self) -> None:
        data_dir, now = self.engines.settings.data_dir, self.engines.clock.now()
        if await asyncio.to_thread(refresh_server, data_dir, now):
            trust = await asyncio.to_thread(load, data_dir)
            self.listeners.rotate(policies.material(trust))
            _log.info("server certificates refreshed")

    def _schedule_failed(self, name: str) -> None:
        self.engines.metrics.schedule_failures.labels(name).inc()
