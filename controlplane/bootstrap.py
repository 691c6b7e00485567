"""The one composition root: builds a server from its settings, starts it, and ends it.

Who may call whom stands here and in ``.importlinter``. What must flow against that
direction is a hook, wired in ``_wire``: the deletion of an agent ends its tasks,
denies its certificates and closes its streams.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import Iterable
from time import monotonic

import structlog

from controlplane import failpoints, preflight
from controlplane.agents import operations as agents_operations
from controlplane.agents.handler import AgentRegistryHandler
from controlplane.agents.rules import HealthLimits, Presence
from controlplane.agents.service import AgentsService
from controlplane.clock import Clock, SystemClock
from controlplane.identity import operations as identity_operations
from controlplane.identity.handler import EnrollmentServicer, EnrollmentTokenServicer, IdentityServicer
from controlplane.identity.service import IdentityPolicy, IdentityService
from controlplane.observability import service_manager
from controlplane.observability.loop_lag import measure_loop_lag
from controlplane.observability.metrics import Metrics
from controlplane.preflight import StartRefused
from controlplane.schedules import Schedule, Schedules
from controlplane.sessions import rules as session_rules
from controlplane.sessions.admissions import Admissions
from controlplane.sessions.handler import AgentHandler
from controlplane.sessions.heartbeats import Heartbeats
from controlplane.sessions.limits import SessionPolicy
from controlplane.sessions.registry import Ending, Registry, revoked
from controlplane.sessions.rules.replay import Pace
from controlplane.sessions.rules.strain import Strain
from controlplane.sessions.telemetry_streams import TelemetryStreams
from controlplane.sessions.upkeep import Upkeep
from controlplane.sessions.work_streams import WorkStreams
from controlplane.settings import Settings, notify_socket
from controlplane.storage import inspection, migrate
from controlplane.storage.backup import restoring
from controlplane.storage.database import Database
from controlplane.storage.writer import Writer
from controlplane.tasks.delivery import Delivery
from controlplane.tasks.handler import TaskHandler
from controlplane.tasks.service import TasksService
from controlplane.tasks.sweeping import Sweep
from controlplane.telemetry import operations as telemetry_operations
from controlplane.telemetry.handler import TelemetryHandler
from controlplane.telemetry.service import TelemetryService
from controlplane.transport.channel_options import AGENT_MESSAGE_BYTES
from controlplane.transport.listeners import Limits, Listeners, Material, Ports
from controlplane.transport.server_info import Facts, ServerInfoServicer
from controlplane.transport.tls import TlsMaterial
from controlplane.trust.adoption import Adoption, load_adoption
from controlplane.trust.layout import DATABASE, ServerTrust, load
from controlplane.trust.setup import refresh_server
from controlplane.wakeups import WakeUps

_log = structlog.get_logger(__name__)


class Server:
    """All three roles in one process on the database of one data folder.

    Made and run on one event loop. ``start`` returns the ports once everything
    listens; ``stop`` drains.
    """

    def __init__(self, settings: Settings, trust: ServerTrust, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self.metrics = Metrics()
        self._database = Database(settings.data_dir / DATABASE, self.metrics)
        self._wakeups = WakeUps()
        self._registry = Registry()
        self._policy = _session_policy(settings)
        self._writer = Writer(self._database, self._observe_commit)
        self.metrics.writer_queue.set_function(lambda: self._writer.queued)
        self._longest_commit = 0.0
        self._admissions = Admissions(settings.admission_target, self.metrics)
        self._pace = Pace(settings.telemetry_rate, monotonic())
        self.metrics.replay_rate.set_function(lambda: self._pace.rate)
        self._background: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()
        """Set when a part without which nothing works has ended by itself."""
        self._trust_domain = trust.trust_domain
        self._build_rooms(trust, self._token_secret(trust))
        self._wire()
        self._listeners = Listeners(
            settings.bind_host,
            settings.health_bind_host,
            Ports(settings.agents_port, settings.admin_port, settings.enrollment_port, settings.health_port),
            material=_material(trust),
            trust_domain=self._trust_domain,
            clock=self._clock,
            metrics=self.metrics,
            denied=self._identity.is_denied,
            seen=self._identity.administrators.seen,
            limits=_limits(settings),
        )
        self._serve_rooms()
        self._schedules = Schedules(self._schedule_list(), self._schedule_failed)

    def _build_rooms(self, trust: ServerTrust, secret: bytes) -> None:
        settings, database, clock = self._settings, self._database, self._clock
        health = HealthLimits(settings.heartbeat_interval, settings.stale_after, settings.offline_after)
        self._agents = AgentsService(database, self._wakeups, clock, health, secret)
        identity_policy = IdentityPolicy(
            settings.agent_certificate_life, settings.advertised_agent_addresses, self._adoption()
        )
        self._identity = IdentityService(
            database,
            self._writer,
            self._agents,
            trust.agents,
            trust.operators,
            clock,
            identity_policy,
            secret,
        )
        self._tasks = TasksService(
            database,
            self._writer,
            self._agents,
            self._wakeups,
            clock,
            secret,
            self._registry.wake,
            self._wake_to_stop,
        )
        delivery = Delivery(settings.lease_time, self._tasks.changed)
        self._sweep = Sweep(database, self._agents, self._tasks, delivery.settling, clock)
        self._telemetry = TelemetryService(database, self._wakeups, self._agents, secret)
        delivery.register(self._writer)
        agents_operations.register_operations(
            self._writer,
            self._wakeups,
            [delivery.lose_journals],
            refuse_clones=settings.clone_policy == "refuse",
        )
        identity_operations.register_operations(self._writer, self._agents)
        telemetry_operations.register_operations(self._writer, self._wakeups)
        registry, writer, policy = self._registry, self._writer, self._policy
        self._heartbeats = Heartbeats(
            registry, writer, self._identity, self._tasks, clock, policy, self._admissions
        )
        self._upkeep = Upkeep(registry, self._agents, clock, policy, health)
        self._agent_handler = AgentHandler(
            self._heartbeats,
            WorkStreams(registry, writer, self._tasks, clock, policy, self.metrics),
            TelemetryStreams(registry, writer, self._telemetry, clock, policy, self._pace),
            self._identity,
        )

    def _token_secret(self, trust: ServerTrust) -> bytes:
        # Of one history: after a restore, numbers that a watch has passed come again, for other changes.
        history = inspection.history(self._database.path).to_bytes(4, "big", signed=True)
        return hashlib.sha256(b"fleetwright page tokens\0" + history + trust.server_key_pem).digest()

    def _adoption(self) -> Adoption | None:
        found = load_adoption(self._settings.data_dir)
        if found is None or found.until < self._clock.now():
            return None
        _log.warning("unknown certificates of enrolled agents are adopted", until=found.until.isoformat())
        return found

    def _wire(self) -> None:
        self._agents.on_delete.append(self._tasks.cancel_for_agent)
        self._agents.on_delete.append(self._identity.agent_deleted)
        self._identity.after_revoke.append(lambda revocation: self._close_session(revocation.agent_id))

    def _serve_rooms(self) -> None:
        admin = self._listeners.admin.server
        self._agent_handler.add_to(self._listeners.agents.server)
        EnrollmentServicer(self._identity).add_to(self._listeners.enrollment.server)
        AgentRegistryHandler(self._agents).add_to(admin)
        EnrollmentTokenServicer(self._identity.tokens, self._clock).add_to(admin)
        IdentityServicer(self._identity.administrators, self._clock).add_to(admin)
        TaskHandler(self._tasks).add_to(admin)
        TelemetryHandler(self._telemetry).add_to(admin)

    def _schedule_list(self) -> list[Schedule]:
        settings = self._settings
        return [
            Schedule("beats", settings.last_seen_flush, self._upkeep.flush_beats),
            Schedule("health", settings.presence_sweep, self._check_health),
            Schedule("tasks", settings.tasks_sweep, self._sweep.run),
            Schedule("wake", settings.tasks_sweep, self._tasks.wake_waiting),
            Schedule("telemetry retention", settings.retention_sweep, self._prune_telemetry),
            Schedule("task retention", settings.retention_sweep, self._prune_tasks),
            Schedule("token retention", settings.retention_sweep, self._prune_tokens),
            Schedule("identities", settings.last_seen_flush, self._identity.administrators.record),
            Schedule("identity records", settings.retention_sweep, self._identity.sweep),
            Schedule("server certificates", settings.retention_sweep, self._refresh_certificates),
        ]

    async def start(self) -> Ports:
        """Bring up everything and return the bound ports. Raises ``StartRefused``."""
        self._background = [
            asyncio.create_task(self._writer.run(), name="writer"),
            asyncio.create_task(measure_loop_lag(self.metrics, observe=self._observe_lag), name="loop lag"),
        ]
        for task in self._background:
            task.add_done_callback(self._background_ended)
        try:
            await self._identity.load()
            adopted = await self._agents.adopt_after_restart(self._clock.now())
            await self._serve_info()
            await self._measure()
            ports = await self._listeners.open()
        except BaseException:
            await self._end_background()
            raise
        self._schedules.start()
        await self._listeners.health.serving()
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
        schema = await asyncio.to_thread(inspection.schema_version, self._database.path)
        facts = Facts(self._trust_domain, self._settings.max_agents, str(schema), self._clock.now())
        info = ServerInfoServicer(facts, self._clock, self._registry.__len__)
        info.add_to(self._listeners.admin.server)

    async def stop(self) -> None:
        """Drain: let no one in, send agents away over the window, end calls, commit what is queued, close."""
        _log.info("draining", sessions=len(self._registry), window=str(self._policy.drain_window))
        await self._listeners.turn_away()
        await self._heartbeats.drain()
        await self._listeners.close(self._settings.drain_grace)
        await self._schedules.stop()
        await self._registry.settled()
        await self._writer.close()
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
        await self._database.close()

    async def _check_health(self) -> None:
        await self._upkeep.check_health()
        await self._measure()

    async def _measure(self) -> None:
        for presence, number in (await self._agents.counts()).items():
            self.metrics.agents.labels(Presence(presence).name).set(number)
        for state, depth in (await self._tasks.depths()).items():
            self.metrics.tasks.labels(state.name).set(depth.count)
            self.metrics.task_oldest_seconds.labels(state.name).set(depth.oldest.total_seconds())

    async def _prune_telemetry(self) -> int:
        return await self._telemetry.prune(self._clock.now() - self._settings.telemetry_retention)

    async def _prune_tasks(self) -> int:
        return await self._tasks.prune(self._clock.now() - self._settings.task_retention)

    async def _prune_tokens(self) -> int:
        return await self._identity.tokens.prune(self._clock.now() - self._settings.token_retention)

    async def _refresh_certificates(self) -> None:
        now = self._clock.now()
        if await asyncio.to_thread(refresh_server, self._settings.data_dir, now):
            trust = await asyncio.to_thread(load, self._settings.data_dir)
            self._listeners.rotate(_material(trust))
            _log.info("server certificates refreshed")

    def _wake_to_stop(self, agent_ids: Iterable[str]) -> None:
        self._registry.wake(agent_ids, stopping=True)

    def _close_session(self, agent_id: str) -> None:
        session = self._registry.get(agent_id)
        if session is not None:
            session.end(Ending(0, revoked(agent_id)))

    def _observe_commit(self, size: int, seconds: float) -> None:
        self.metrics.group_commit_size.observe(size)
        self.metrics.group_commit_seconds.observe(seconds)
        self._longest_commit = max(self._longest_commit, seconds)

    def _observe_lag(self, lag: float) -> None:
        """Size by what was measured since the last look how many are let in, and how fast they replay."""
        strain = Strain(lag, self._longest_commit, self._writer.queued)
        self._longest_commit = 0.0
        self._admissions.size(strain)
        self._pace.size(strain, monotonic())

    def _schedule_failed(self, name: str) -> None:
        self.metrics.schedule_failures.labels(name).inc()


def _session_policy(settings: Settings) -> SessionPolicy:
    return SessionPolicy(
        max_sessions=settings.max_agents,
        heartbeat_interval=settings.heartbeat_interval,
        beats_per_second=settings.max_beats_per_second,
        telemetry_interval=settings.telemetry_interval,
        tasks_linger=settings.tasks_linger,
        telemetry_linger=settings.telemetry_linger,
        slow_reader_after=settings.slow_reader_after,
        first_message_after=settings.handshake_timeout,
        drain_window=settings.drain_window,
        max_message_bytes=AGENT_MESSAGE_BYTES,
        max_credits=settings.max_credits,
        telemetry_budget=settings.telemetry_budget,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        handshake_timeout=settings.handshake_timeout,
        keepalive=session_rules.ping_interval(settings.max_agents, settings.keepalive_interval),
        ping_timeout=settings.ping_timeout,
        max_connection_age=settings.max_connection_age,
        max_agents=settings.max_agents,
    )


def _material(trust: ServerTrust) -> Material:
    key = trust.server_key_pem
    return Material(
        agents=TlsMaterial(key, trust.agents_chain_pem, trust.agents.certificate_pem),
        admin=TlsMaterial(key, trust.operators_chain_pem, trust.operators.certificate_pem),
        enrollment=TlsMaterial(key, trust.agents_chain_pem, None),
    )


_COLLECT_AFTER = (5_000, 20, 50)


def _settle_memory() -> None:
    """Let the garbage collector leave alone what stays, and look less often at the rest.

    Every message makes some hundred objects and lets nearly all of them go by themselves. With Python's
    own threshold of 700 that is a look at the young ones every few messages, and at the whole fleet
    every few thousand; with a much larger one each look stops the event loop for long (docs/decisions
    has the measurement).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run a server until ``stop`` is set.

    Raises ``StartRefused``, ``DataFolderError``, ``DatabaseUnusableError`` or
    ``ServiceError`` where it cannot start; each says what to do.
    """
    try:
        failpoints.arm(settings.failpoints)
    except ValueError as error:
        raise StartRefused(str(error)) from None
    with preflight.check(settings.data_dir, settings.max_agents):
        if await asyncio.to_thread(restoring.finish, settings.data_dir):
            _log.warning("an interrupted restore was finished", data_dir=str(settings.data_dir))
        refresh_server(settings.data_dir, SystemClock().now())
        trust = load(settings.data_dir)
        before, after = await asyncio.to_thread(migrate.upgrade, settings.data_dir / DATABASE)
        if before != after:
            _log.info("database upgraded", before=before, after=after)
        server = Server(settings, trust)
        await server.start()
        _settle_memory()
        manager = notify_socket()
        service_manager.notify(manager, service_manager.READY, "STATUS=serving")
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, server.failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if server.failed.is_set():
            # Nothing can be committed any more: ending at once loses nothing, and is seen.
            raise StartRefused("a part of the server has failed; the log says which")
        service_manager.notify(manager, service_manager.STOPPING, "STATUS=draining")
        await server.stop()
