"""The room of packages, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetwright.verify.keys import Purpose

from controlplane import VERSION
from controlplane.agents.service import AgentsService
from controlplane.bootstrap.engines import Engines
from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisory_imports import AdvisoryImports
from controlplane.packaging.agent_downloads import AgentDownloads, DownloadPolicy
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.delivered_root import DeliveredRoot
from controlplane.packaging.deploying import Deployments
from controlplane.packaging.downloads import Downloads
from controlplane.packaging.exceptions import ExceptionsService
from controlplane.packaging.exporting import Exports
from controlplane.packaging.factory import Attesters, Means, stages_of
from controlplane.packaging.handler import (
    AdvisoryHandler,
    PackageDoors,
    PackagingHandler,
    PipelineDoors,
    TrustHandler,
)
from controlplane.packaging.isolation.records import FactName, IsolationSettings
from controlplane.packaging.judging import Attesting, Judging, Scanner, SecondEngine, Terms, TrivyEngine
from controlplane.packaging.observing import CountedThroughput
from controlplane.packaging.offline_roles import OfflineRoles
from controlplane.packaging.packages import PackagesService
from controlplane.packaging.paging import Pages
from controlplane.packaging.policy.cel import CompiledPolicy, load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.policy.document import PolicyError
from controlplane.packaging.policy.verdict import Verifier
from controlplane.packaging.release_keys import ReleaseKeys
from controlplane.packaging.releasing import Releases
from controlplane.packaging.rescanning import Rescanning
from controlplane.packaging.rules import Stage
from controlplane.packaging.scratch import Scratch
from controlplane.packaging.service import PipelinesService
from controlplane.packaging.signing.keys import OriginKey, load_key
from controlplane.packaging.stages import StageRun
from controlplane.packaging.uploads import UploadPolicy, Uploads
from controlplane.packaging.watching import Watches
from controlplane.preflight import StartRefused
from controlplane.settings import Settings
from controlplane.tasks.delivery import Delivery
from controlplane.tasks.service import TasksService
from controlplane.trust.keys import SigningKey
from controlplane.trust.layout import DEB_ORIGIN, Layout

Stages = Mapping[Stage, StageRun]
"""What pipelines are made of."""


def isolation_settings(settings: Settings) -> IsolationSettings:
    """Return how this machine isolates what reads foreign bytes."""
    return IsolationSettings(
        scratch_root=settings.scratch_folder,
        uid=settings.isolation_uid,
        gid=settings.isolation_gid,
        uids=settings.isolation_uids,
        require=frozenset(FactName(name) for name in settings.isolation_require),
    )


def policy_of(settings: Settings) -> CompiledPolicy:
    """Return the policy that packages are judged by. Raises ``StartRefused``."""
    try:
        return load_policy(settings.policy_file.read_bytes() if settings.policy_file else DEFAULT_POLICY)
    except OSError as error:
        raise StartRefused(f"FLEETWRIGHT_POLICY_FILE: {error.filename}: {error.strerror}") from None
    except PolicyError as error:
        raise StartRefused(f"FLEETWRIGHT_POLICY_FILE: {settings.policy_file}: {error}") from None


def second_engine(settings: Settings, folder: Path) -> SecondEngine | None:
    """Return what scans besides our own engine, None for nothing. Raises ``StartRefused``."""
    if settings.trivy_program is None:
        return None
    if not settings.trivy_sha256:
        raise StartRefused(
            "FLEETWRIGHT_TRIVY_SHA256: a second engine runs by its digest alone; set it to that of "
            f"{settings.trivy_program} (`sha256sum`), as its publisher gives it"
        )
    return TrivyEngine(
        settings.trivy_program.resolve(), settings.trivy_sha256, isolation_settings(settings), folder
    )


class PackagingRoom:
    """The services of the room. ``stages`` are run in the place of the factory's own."""

    def __init__(
        self,
        engines: Engines,
        agents: AgentsService,
        tasks: TasksService,
        delivery: Delivery,
        stages: Stages | None = None,
    ) -> None:
        settings, database, clock = engines.settings, engines.database, engines.clock
        self._engines = engines
        self._layout = Layout(settings.data_dir)
        self.scratch = Scratch(settings.scratch_folder)
        self.blobs = Blobs(settings.packages_folder)
        self.keys = ReleaseKeys(self._layout.release_trust)
        self.delivered_root = DeliveredRoot(database, self._layout.release_trust)
        self.releases = Releases(database, self.blobs, clock, self.keys, self.scratch.path)
        self.deployments = Deployments(database, tasks, delivery)
        agents.on_delete.append(self.deployments.agent_deleted)
        self.advisories = AdvisoriesService(database, clock)
        self.judging = self._judging()
        self.rescanning = Rescanning(database, clock, self.judging, self.releases, self.deployments)
        self._pages = Pages(engines.secret)
        self.uploads = Uploads(
            database,
            self.blobs,
            clock,
            UploadPolicy(settings.artefact_bytes, settings.upload_time),
            self.scratch.path,
            engines.metrics.upload_bytes.inc,
        )
        self.pipelines = PipelinesService(
            database,
            engines.wakeups,
            clock,
            self._pages,
            settings.default_channel,
            self.releases.channels if stages is None else self._default_channel,
        )
        self.imports = AdvisoryImports(
            self.advisories,
            clock,
            self.scratch.path,
            most_bytes=settings.advisories_bytes,
            max_age=settings.advisory_max_age,
            rejudge=self._rejudge,
        )
        self.stages = self._stages() if stages is None else stages

    def _judging(self) -> Judging:
        engines = self._engines
        settings, trust_domain = engines.settings, engines.trust.trust_domain
        verifier = Verifier(f"spiffe://{trust_domain}/policy", VERSION)
        terms = Terms(policy_of(settings), verifier, settings.advisory_max_age)
        attesting = Attesting(Attesters(self.key_for))
        second = second_engine(settings, self.scratch.path)
        scanner = Scanner(self.advisories, attesting, engines.clock, terms, second)
        return Judging(engines.database, engines.clock, scanner, attesting, terms)

    def _stages(self) -> Stages:
        engines = self._engines
        return stages_of(
            Means(
                database=engines.database,
                clock=engines.clock,
                blobs=self.blobs,
                isolation=isolation_settings(engines.settings),
                key_for=self.key_for,
                origin_for=self.origin_key,
                builder_id=f"spiffe://{engines.trust.trust_domain}/builder",
                judging=self.judging,
                releases=self.releases,
            )
        )

    def key_for(self, purpose: Purpose) -> SigningKey | None:
        """Return the key that attests something, None where there is none here."""
        return self.keys.attester(purpose)

    def origin_key(self) -> OriginKey | None:
        """Return the key that .debs are signed with, None for none. Raises ``SigningFailed``."""
        path: Path = self._layout.release_trust / DEB_ORIGIN
        return load_key(path, self._engines.clock.now()) if path.exists() else None

    async def _default_channel(self) -> Sequence[str]:
        return [self._engines.settings.default_channel]

    async def _rejudge(self) -> int:
        return len((await self.rescanning.run()).turned) if self.keys.here else 0

    def handlers(self) -> tuple[PackagingHandler, AdvisoryHandler, TrustHandler]:
        """Return what serves administrators."""
        engines = self._engines
        packages = PackageDoors(
            pages=self._pages,
            packages=PackagesService(engines.database, self.deployments),
            exceptions=ExceptionsService(engines.database, engines.clock, self.rescanning.one),
            deployments=self.deployments,
            downloads=Downloads(engines.database, self.blobs),
            exports=Exports(engines.database, self.blobs, self.releases.repository, self.scratch.path),
            sent=engines.metrics.download_bytes.labels("administrator").inc,
        )
        watches = Watches(engines.database, engines.wakeups, self._pages)
        pipelines = PipelineDoors(self.uploads, self.pipelines, watches)
        offline = OfflineRoles(self.releases, engines.clock)
        return (
            PackagingHandler(pipelines, packages),
            AdvisoryHandler(self.imports),
            TrustHandler(offline),
        )

    def agent_downloads(self) -> AgentDownloads:
        """Return what serves agents."""
        engines = self._engines
        rate, at_once = engines.settings.download_rate, engines.settings.max_downloads
        policy = DownloadPolicy(bytes_per_second=rate, at_once=at_once)
        return AgentDownloads(
            engines.database,
            self.blobs,
            self.releases,
            policy,
            throughput=CountedThroughput(
                rate, policy.burst_bytes, engines.metrics.download_bytes.labels("agent").inc
            ),
        )

    async def end(self) -> None:
        """Remove what is on its way here."""
        await asyncio.to_thread(self.scratch.remove)
