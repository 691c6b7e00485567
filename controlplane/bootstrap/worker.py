"""The role ``worker``: what is done on a schedule, whoever is connected where."""

from __future__ import annotations

from controlplane.agents.rules import Presence
from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.packaging_worker import PackagingWorker
from controlplane.bootstrap.rooms import Rooms
from controlplane.schedules import Schedule, Turn
from controlplane.tasks.sweeping import Sweep


class Worker:
    """Sweeps, retention, and pipelines."""

    def __init__(self, engines: Engines, rooms: Rooms) -> None:
        self._settings = engines.settings
        self._clock = engines.clock
        self._metrics = engines.metrics
        self._rooms = rooms
        self.sweep = Sweep(
            engines.database, rooms.agents, rooms.tasks, rooms.delivery.settling, engines.clock
        )
        self.packaging = PackagingWorker(engines, rooms.packaging, rooms.processes, rooms.member)

    def schedules(self) -> list[Schedule]:
        """Return what is done for the whole installation, by one process."""
        settings, rooms = self._settings, self._rooms
        sweep, retention = settings.presence_sweep, settings.retention_sweep
        return [
            Schedule("processes", sweep, self._sweep_processes, once=True),
            Schedule("measure", sweep, lambda _: self.measure()),
            Schedule("tasks", settings.tasks_sweep, lambda _: self.sweep.run(), once=True),
            Schedule("batches", settings.tasks_sweep, lambda _: rooms.tasks.batches.expand(), once=True),
            *self.packaging.schedules(),
            Schedule("telemetry retention", retention, lambda _: self._prune_telemetry(), once=True),
            Schedule("task retention", retention, lambda _: self._prune_tasks(), once=True),
            Schedule("ledger retention", retention, lambda _: self._prune_ledger(), once=True),
            Schedule("token retention", retention, lambda _: self._prune_tokens(), once=True),
            Schedule("identity records", retention, lambda _: rooms.identity.sweep(), once=True),
        ]

    async def _sweep_processes(self, turn: Turn) -> None:
        if self._rooms.member.may_judge:
            await self._rooms.processes.sweep(turn)

    async def measure(self) -> None:
        """Count agents, tasks and pipelines for the metrics."""
        await self.packaging.measure()
        for presence, number in (await self._rooms.agents.counts()).items():
            self._metrics.agents.labels(Presence(presence).name).set(number)
        for state, depth in (await self._rooms.tasks.depths()).items():
            self._metrics.tasks.labels(state.name).set(depth.count)
            self._metrics.task_oldest_seconds.labels(state.name).set(depth.oldest.total_seconds())

    async def _prune_telemetry(self) -> int:
        return await self._rooms.telemetry.prune(self._clock.now() - self._settings.telemetry_retention)

    async def _prune_tasks(self) -> int:
        return await self._rooms.tasks.prune(self._clock.now() - self._settings.task_retention)

    async def _prune_ledger(self) -> int:
        return await self._rooms.ledger.prune(self._clock.now() - self._settings.ledger_retention)

    async def _prune_tokens(self) -> int:
        return await self._rooms.identity.tokens.prune(self._clock.now() - self._settings.token_retention)
