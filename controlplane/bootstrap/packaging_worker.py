"""Runs pipelines in this process, and what the room of packages does on a schedule."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.packaging import PackagingRoom
from controlplane.clock import to_micros
from controlplane.packaging.dispatching import POLL, Dispatching, Steps
from controlplane.packaging.isolation import scratch as isolation
from controlplane.packaging.observing import observed
from controlplane.packaging.running import Running
from controlplane.processes.service import Member, Processes
from controlplane.schedules import Schedule, Turn
from controlplane.storage.location import Location, Postgres
from controlplane.workflows import Workflows

WORKFLOWS = "workflows.db"
"""The books of pipelines that run, beside an embedded database."""

_SECOND = 1_000_000  # microseconds

_log = structlog.get_logger(__name__)


def workflows_url(location: Location) -> str:
    """Return where the books of pipelines that run are, as SQLAlchemy's URL."""
    if isinstance(location, Postgres):
        return location.sqlalchemy_url()
    return f"sqlite:///{(location.parent / WORKFLOWS).resolve()}"


class PackagingWorker:
    """The worker's part of the room; it is there in every process, and idle where that is no worker."""

    def __init__(self, engines: Engines, room: PackagingRoom, processes: Processes, member: Member) -> None:
        self._engines = engines
        self._room = room
        self._processes = processes
        self._member = member
        stages = {stage: observed(stage, run, engines.metrics) for stage, run in room.stages.items()}
        running = Running(engines.database, engines.wakeups, engines.clock, stages, room.scratch.path)
        workflows = Workflows(
            workflows_url(engines.location), engines.process.process_id, Steps(running).step
        )
        # Where there is one process, no wake-up is lost on the way.
        poll = timedelta(hours=1) if engines.alone else POLL
        self.dispatching = Dispatching(engines.database, engines.wakeups, running, workflows, poll)

    async def run(self) -> None:
        """Run pipelines until cancelled."""
        await self.clear()
        alone = [self._engines.process.process_id] if self._engines.alone else None
        await self.dispatching.run(alone)

    async def stop(self) -> None:
        """End what runs here; another worker, or the next start, goes on with it."""
        await self.dispatching.stop()

    def schedules(self) -> list[Schedule]:
        """Return what is done for the whole installation, by one process."""
        settings, deployments = self._engines.settings, self._room.deployments
        sweep, retention = settings.packages_sweep, settings.retention_sweep
        return [
            Schedule("pipelines", settings.presence_sweep, self._take_over, once=True),
            Schedule("uploads", retention, lambda _: self.sweep(), once=True),
            # Each worker for its own machine: what a kill left a moment ago is too young for the next start.
            Schedule("scratch", sweep, lambda _: self.clear_jobs()),
            Schedule("packages", sweep, lambda _: self.rejudge(), once=True),
            Schedule("releases", sweep, lambda _: self.release(), once=True),
            Schedule("deployments", sweep, lambda _: deployments.reconcile(), once=True),
            Schedule("deployment retention", retention, lambda _: self._prune(), once=True),
        ]

    async def _take_over(self, _: Turn) -> None:
        if self._member.may_judge:
            await self.take_over()

    async def take_over(self) -> None:
        """Go on with what processes had in hand whose lease lapsed."""
        living = await self._processes.list()
        await self.dispatching.take_over([one.process_id for one, left in living if left > timedelta()])

    async def sweep(self) -> None:
        """Throw away uploads whose time is over, what killed processes half stored, and calls that nobody
        repeats any more.
        """
        await self._room.uploads.sweep()
        await self._room.uploads.forget_requests()
        _say_swept(await asyncio.to_thread(self._room.blobs.sweep))

    async def rejudge(self) -> None:
        """Judge again what is due; what cannot sign here is left to whoever can."""
        if self._room.keys.here:
            await self._room.rescanning.run()

    async def release(self) -> None:
        """Let the releases agree with what was decided, and sign again what ends soon."""
        await self._room.releases.reconcile()
        await self._room.releases.refresh()

    async def _prune(self) -> int:
        engines = self._engines
        return await self._room.deployments.prune(engines.clock.now() - engines.settings.task_retention)

    async def clear(self) -> None:
        """Remove what processes of this machine left that were killed."""
        swept = await asyncio.to_thread(self._room.scratch.sweep)
        _say_swept(swept)
        await self.clear_jobs()

    async def clear_jobs(self) -> None:
        """Remove the folders of jobs that were killed with their process, before anybody worked there."""
        _say_swept(await asyncio.to_thread(isolation.sweep, self._engines.settings.scratch_folder))

    async def measure(self) -> None:
        """Count pipelines, and tell how old what is known of vulnerabilities is."""
        metrics = self._engines.metrics
        for state, number in (await self._room.pipelines.counts()).items():
            metrics.pipelines.labels(state.name).set(number)
        now = to_micros(self._engines.clock.now())
        for known in await self._room.imports.status():
            age = (now - known.standing.newest_modified) / _SECOND
            metrics.advisory_age_seconds.labels(known.standing.ecosystem).set(age)


def _say_swept(count: int) -> None:
    if count:
        _log.info("removed what killed processes left", count=count)
