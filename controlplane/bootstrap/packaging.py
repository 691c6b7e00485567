"""The room of packages, put together, and its worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import structlog

from controlplane.bootstrap.engines import Engines
from controlplane.clock import to_micros
from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisory_imports import AdvisoryImports
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.dispatching import Dispatching, Steps
from controlplane.packaging.isolation import scratch as isolation
from controlplane.packaging.isolation.records import FactName, IsolationSettings
from controlplane.packaging.observing import observed
from controlplane.packaging.paging import Pages
from controlplane.packaging.rules import Stage
from controlplane.packaging.running import Running
from controlplane.packaging.scratch import Scratch
from controlplane.packaging.service import PipelinesService
from controlplane.packaging.stages import StageRun
from controlplane.packaging.uploads import UploadPolicy, Uploads
from controlplane.packaging.watching import Watches
from controlplane.processes.service import Processes
from controlplane.settings import Settings
from controlplane.storage.location import Location, Postgres
from controlplane.workflows import Workflows

_log = structlog.get_logger(__name__)

WORKFLOWS = "workflows.db"
"""The books of pipelines that run, beside an embedded database."""


Stages = Mapping[Stage, StageRun]
"""What pipelines are made of."""

_SECOND = 1_000_000  # microseconds


def isolation_settings(settings: Settings) -> IsolationSettings:
    """Return how this machine isolates what reads foreign bytes."""
    return IsolationSettings(
        scratch_root=settings.scratch_folder,
        uid=settings.isolation_uid,
        gid=settings.isolation_gid,
        uids=settings.isolation_uids,
        require=frozenset(FactName(name) for name in settings.isolation_require),
    )


def workflows_url(location: Location) -> str:
    """Return where the books of pipelines that run are, as SQLAlchemy's URL."""
    if isinstance(location, Postgres):
        return location.sqlalchemy_url()
    return f"sqlite:///{(location.parent / WORKFLOWS).resolve()}"


class PackagingRoom:
    """The services of the room, as callers ask them."""

    def __init__(self, engines: Engines, stages: Stages | None) -> None:
        settings, database, clock = engines.settings, engines.database, engines.clock
        self.scratch = Scratch(settings.scratch_folder)
        self.blobs = Blobs(settings.packages_folder)
        self.pages = Pages(engines.secret)
        self.uploads = Uploads(
            database,
            self.blobs,
            clock,
            UploadPolicy(settings.artefact_bytes, settings.upload_time),
            self.scratch.path,
            engines.metrics.upload_bytes.inc,
        )
        self.advisories = AdvisoriesService(database, clock)
        self.stages = stages
        self.pipelines = PipelinesService(
            database, engines.wakeups, clock, self.pages, settings.default_channel, self._channels
        )
        self.watches = Watches(database, engines.wakeups, self.pages)
        self.imports = AdvisoryImports(
            self.advisories,
            clock,
            self.scratch.path,
            most_bytes=settings.advisories_bytes,
            max_age=settings.advisory_max_age,
            rejudge=self._rejudge,
        )
        self._default_channel = settings.default_channel

    async def _channels(self) -> list[str]:
        return [self._default_channel]

    async def _rejudge(self) -> int:
        return 0


class PackagingWorker:
    """Runs pipelines in this process."""

    def __init__(self, engines: Engines, room: PackagingRoom, processes: Processes) -> None:
        self._engines = engines
        self._processes = processes
        self._room = room
        stages = {stage: observed(stage, run, engines.metrics) for stage, run in (room.stages or {}).items()}
        running = Running(engines.database, engines.wakeups, engines.clock, stages, room.scratch.path)
        workflows = Workflows(
            workflows_url(engines.location), engines.process.process_id, Steps(running).step
        )
        self.dispatching = Dispatching(engines.database, engines.wakeups, running, workflows)

    async def run(self) -> None:
        """Run pipelines until cancelled."""
        alone = [self._engines.process.process_id] if self._engines.alone else None
        await self.dispatching.run(alone)

    async def take_over(self) -> None:
        """Go on with what processes had in hand whose lease lapsed."""
        living = await self._processes.list()
        await self.dispatching.take_over([one.process_id for one, left in living if left > timedelta()])

    async def sweep(self) -> None:
        """Throw away uploads whose time is over, and calls that nobody repeats any more."""
        await self._room.uploads.sweep()
        await self._room.uploads.forget_requests()

    async def clear(self) -> None:
        """Remove what a process of this machine left that was killed."""
        swept = await asyncio.to_thread(self._room.scratch.sweep)
        swept += await asyncio.to_thread(isolation.sweep, self._engines.settings.scratch_folder)
        if swept:
            _log.info("removed what killed processes left", folders=swept)

    async def stop(self) -> None:
        """End what runs here; another worker, or the next start, goes on with it."""
        await self.dispatching.stop()

    async def measure(self) -> None:
        """Count pipelines, and tell how old what is known of vulnerabilities is."""
        metrics = self._engines.metrics
        for state, number in (await self._room.pipelines.counts()).items():
            metrics.pipelines.labels(state.name).set(number)
        now = to_micros(self._engines.clock.now())
        for known in await self._room.imports.status():
            age = (now - known.standing.newest_modified) / _SECOND
            metrics.advisory_age_seconds.labels(known.standing.ecosystem).set(age)
