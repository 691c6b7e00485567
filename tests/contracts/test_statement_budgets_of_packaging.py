"""How many statements each call of the packaging room may issue, with one row and with many.

As test_statement_budgets.py says. What a worker does with a pipeline is none of it: it does nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fleetwright.v1 import (
    advisory_service_pb2,
    agent_service_pb2,
    trust_service_pb2,
    trust_service_pb2_grpc,
)
from fleetwright.v1 import packaging_service_pb2 as pb2
from sqlalchemy import insert, select

from controlplane.packaging.rules import PipelineState, Stage
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store.tables import package_findings, packages
from controlplane.transport.methods import METHODS
from controlplane.trust.keys import load_key
from controlplane.trust.layout import Layout
from controlplane.trust.tuf.ceremony import initialise
from controlplane.trust.tuf.roles import Expiries, Thresholds
from controlplane.trust.tuf.rotation import add_signature, draft_root
from tests.contracts.budget_world import MANY, Cost, Doing, Prepare, World, check, opened
from tests.integration.factory.factory_world import Factory
from tests.integration.factory.test_service_advisories import export, imported
from tests.integration.factory.test_service_whole_way import against, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Packaged:
    """A site with a released package, many more in its books, and a worker that does nothing any more."""

    world: World
    factory: Factory
    package: str
    agent: Any

    def digest(self) -> str:
        return hashlib.sha256(self.world.name().encode()).hexdigest()

    async def pipeline(self, **fields: Any) -> str:
        """Create a pipeline that waits; returns its name."""
        artefact = self.artefact
        request = pb2.CreatePipelineRequest(artefact=artefact, on_demand=True, **fields)
        return str((await self.factory.calls.CreatePipeline(request)).pipeline.name)

    artefact: str = ""
    offline: Path = Path()

    async def pipelines(self, count: int) -> str:
        """Create so many pipelines of one build; returns a filter for them."""
        build = self.world.name()
        for _ in range(count):
            await self.pipeline(build_id=build)
        return f'build_id = "{build}"'

    async def exception(self) -> str:
        request = pb2.CreateExceptionRequest(
            package=self.package, vulnerability=self.world.name(), justification="a test"
        )
        request.valid_for.FromSeconds(3600)
        return str((await self.factory.calls.CreateException(request)).exception.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Packaged]:
    folder = tmp_path_factory.mktemp("budgets") / "data"
    async with opened(folder) as world:
        initialise(
            folder.parent / "offline",
            Layout(folder).release_trust,
            now=datetime.now(UTC),
            thresholds=Thresholds(),
            expiries=Expiries(),
            channels=["stable"],
        )
        factory = Factory(world.site, None)  # type: ignore[arg-type]  # its stages are the factory's own
        await imported(factory, export(against("other", 1)))
        ended = await made(factory)
        await world.server.worker.packaging.dispatching.stop()
        packaged = Packaged(world, factory, ended.package, world.agents[0].connect(), ended.artefact)
        packaged.offline = folder.parent / "offline"
        await _multiply(packaged)
        yield packaged


async def _multiply(site: Packaged) -> None:
    """Put many packages and findings into the books, as many as a page has."""
    sha256 = site.package.partition("/")[2]
    async with site.world.server.engines.database.unit_of_work() as work:
        row = (await work.connection.execute(select(packages).where(packages.c.sha256 == sha256))).one()
        copies = [{**row._mapping, "sha256": site.digest()} for _ in range(MANY)]
        await work.connection.execute(insert(packages), copies)
        finding = (
            '{"vulnerability":"V","aliases":["V"],"component":"pkg:pypi/x@1","severity":"low",'
            '"severity_source":"","score":null,"matched":"","fixed":"","found_by":["fleetwright"]}'
        )
        rows = [
            {
                "package": sha256,
                "purl": "pkg:pypi/x@1",
                "vulnerability": f"V-{place}",
                "severity": "low",
                "state": "affected",
                "finding": finding,
                "place": place,
                "exception_id": "",
            }
            for place in range(1, MANY + 1)
        ]
        await work.connection.execute(insert(package_findings), rows)


async def start_upload(site: Packaged, rows: int) -> Doing:
    data, request_id = site.world.name().encode(), site.world.name()
    return lambda: site.factory.start(data, request_id=request_id)


async def upload(site: Packaged, rows: int) -> Doing:
    data = (site.world.name() + "x" * rows).encode()
    begun = await site.factory.start(data)
    # As many messages as rows, in one part.
    return lambda: site.factory.send(begun, data, size=max(1, len(data) // rows))


async def get_upload(site: Packaged, rows: int) -> Doing:
    begun = await site.factory.start(site.world.name().encode())
    return lambda: site.factory.calls.GetUpload(pb2.GetUploadRequest(name=begun.name))


async def create(site: Packaged, rows: int) -> Doing:
    request_id = site.world.name()
    return lambda: site.pipeline(request_id=request_id)


async def execute(site: Packaged, rows: int) -> Doing:
    request = pb2.ExecutePipelineRequest(name=await site.pipeline())
    return lambda: site.factory.calls.ExecutePipeline(request)


async def get_pipeline(site: Packaged, rows: int) -> Doing:
    name = await site.pipeline()
    return lambda: site.factory.get(name)


async def list_pipelines(site: Packaged, rows: int) -> Doing:
    request = pb2.ListPipelinesRequest(filter=await site.pipelines(rows), page_size=rows)
    return lambda: site.factory.calls.ListPipelines(request)


async def watch_pipelines(site: Packaged, rows: int) -> Doing:
    request = pb2.WatchPipelinesRequest(filter=await site.pipelines(rows))

    async def watched() -> None:
        call = site.factory.calls.WatchPipelines(request)
        assert len((await call.read()).pipelines) == rows
        call.cancel()

    return watched


async def watch_log(site: Packaged, rows: int) -> Doing:
    name = await site.pipeline()
    lines = [stored.LogLine(number, 1, Stage.INTAKE, "info", "x") for number in range(1, rows + 1)]
    async with site.world.server.engines.database.unit_of_work() as work:
        await stored.append_log(work, name.partition("/")[2], lines)
    return lambda: site.factory.log(name)


async def cancel(site: Packaged, rows: int) -> Doing:
    request = pb2.CancelPipelineRequest(name=await site.pipeline())
    return lambda: site.factory.calls.CancelPipeline(request)


async def retry(site: Packaged, rows: int) -> Doing:
    name = await site.pipeline()
    async with site.world.server.engines.database.unit_of_work() as work:
        await stored.change(work, name.partition("/")[2], state=int(PipelineState.ERROR), stage=1)
    request = pb2.RetryPipelineRequest(name=name)
    return lambda: site.factory.calls.RetryPipeline(request)


async def get_package(site: Packaged, rows: int) -> Doing:
    return lambda: site.factory.calls.GetPackage(pb2.GetPackageRequest(name=site.package))


async def list_packages(site: Packaged, rows: int) -> Doing:
    return lambda: site.factory.calls.ListPackages(pb2.ListPackagesRequest(page_size=rows))


async def list_findings(site: Packaged, rows: int) -> Doing:
    request = pb2.ListFindingsRequest(package=site.package, page_size=rows)
    return lambda: site.factory.calls.ListFindings(request)


async def read_all(call: Any) -> None:
    async for _ in call:
        pass


async def download_package(site: Packaged, rows: int) -> Doing:
    request = pb2.DownloadPackageRequest(name=site.package)
    return lambda: read_all(site.factory.calls.DownloadPackage(request))


async def export_bundle(site: Packaged, rows: int) -> Doing:
    return lambda: read_all(site.factory.calls.ExportBundle(pb2.ExportBundleRequest(name=site.package)))


async def deploy(site: Packaged, rows: int) -> Doing:
    request = pb2.DeployPackageRequest(
        package=site.package, selector=site.world.selector(rows), request_id=site.world.name()
    )
    return lambda: site.factory.calls.DeployPackage(request)


async def list_deployments(site: Packaged, rows: int) -> Doing:
    doing = await deploy(site, rows)
    await doing()
    return lambda: site.factory.calls.ListDeployments(pb2.ListDeploymentsRequest(page_size=rows))


async def create_exception(site: Packaged, rows: int) -> Doing:
    return site.exception


async def approve_exception(site: Packaged, rows: int) -> Doing:
    # Who asked may not approve, which is found after all has been read; approving judges again.
    request = pb2.ApproveExceptionRequest(name=await site.exception())

    async def refused() -> None:
        with pytest.raises(Exception, match="somebody else"):
            await site.factory.calls.ApproveException(request)

    return refused


async def revoke_exception(site: Packaged, rows: int) -> Doing:
    request = pb2.RevokeExceptionRequest(name=await site.exception())
    return lambda: site.factory.calls.RevokeException(request)


async def list_exceptions(site: Packaged, rows: int) -> Doing:
    for _ in range(rows):
        await site.exception()
    return lambda: site.factory.calls.ListExceptions(pb2.ListExceptionsRequest(page_size=rows))


async def advisory_status(site: Packaged, rows: int) -> Doing:
    request = advisory_service_pb2.GetAdvisoryStatusRequest()
    return lambda: site.factory.advisories.GetAdvisoryStatus(request)


async def get_trust(site: Packaged, rows: int) -> Doing:
    calls = trust_service_pb2_grpc.TrustServiceStub(site.world.admin.channel)
    return lambda: calls.GetTrust(trust_service_pb2.GetTrustRequest())


async def install_trust(site: Packaged, rows: int) -> Doing:
    calls: Any = trust_service_pb2_grpc.TrustServiceStub(site.world.admin.channel)
    root = (await calls.GetTrust(trust_service_pb2.GetTrustRequest())).root
    root = draft_root(root, {}, datetime.now(UTC) + timedelta(days=400))
    for number in (1, 2):
        root = add_signature(root, load_key(site.offline / f"root-{number}.pem"))
    return lambda: calls.InstallTrust(trust_service_pb2.InstallTrustRequest(root=root))


async def fetch_metadata(site: Packaged, rows: int) -> Doing:
    request = agent_service_pb2.FetchMetadataRequest(file_name="timestamp.json")
    return lambda: site.agent.FetchMetadata(request)


async def download_artefact(site: Packaged, rows: int) -> Doing:
    request = agent_service_pb2.DownloadArtefactRequest(sha256=site.package.partition("/")[2])
    return lambda: read_all(site.agent.DownloadArtefact(request))


CALLS: dict[str, tuple[Cost, Any]] = {
    "PackagingService/StartUpload": (Cost(4, 1), start_upload),
    "PackagingService/UploadArtefact": (Cost(4, 3), upload),
    "PackagingService/GetUpload": (Cost(1, 1), get_upload),
    "PackagingService/CreatePipeline": (Cost(10, 4), create),
    "PackagingService/ExecutePipeline": (Cost(7, 4), execute),
    "PackagingService/GetPipeline": (Cost(2, 1), get_pipeline),
    "PackagingService/ListPipelines": (Cost(3, 3), list_pipelines),
    "PackagingService/WatchPipelines": (Cost(2, 2), watch_pipelines),
    "PackagingService/WatchPipelineLog": (Cost(4, 2), watch_log),
    "PackagingService/CancelPipeline": (Cost(6, 3), cancel),
    "PackagingService/RetryPipeline": (Cost(8, 4), retry),
    "PackagingService/GetPackage": (Cost(3, 3), get_package),
    "PackagingService/ListPackages": (Cost(4, 4), list_packages),
    "PackagingService/ListFindings": (Cost(3, 2), list_findings),
    "PackagingService/DownloadPackage": (Cost(5, 1), download_package),
    "PackagingService/ExportBundle": (Cost(7, 4), export_bundle),
    "PackagingService/DeployPackage": (Cost(14, 2), deploy),
    "PackagingService/ListDeployments": (Cost(2, 2), list_deployments),
    "PackagingService/CreateException": (Cost(2, 1), create_exception),
    "PackagingService/ApproveException": (Cost(1, 1), approve_exception),
    "PackagingService/RevokeException": (Cost(11, 6), revoke_exception),
    "PackagingService/ListExceptions": (Cost(2, 2), list_exceptions),
    "AdvisoryService/GetAdvisoryStatus": (Cost(1, 1), advisory_status),
    "TrustService/GetTrust": (Cost(6, 6), get_trust),
    "TrustService/InstallTrust": (Cost(5, 3), install_trust),
    "AgentService/FetchMetadata": (Cost(2, 2), fetch_metadata),
    "AgentService/DownloadArtefact": (Cost(2, 2), download_artefact),
}
NOT_HERE = {"AdvisoryService/ImportAdvisories"}
"""It loads and judges everything, as tests/contracts/test_store_advisories.py and its kind try."""


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize("method", CALLS)
async def test_a_call_issues_its_statements_and_no_more(site: Packaged, method: str, rows: int) -> None:
    budget, prepare = CALLS[method]
    doing: Prepare = lambda _, count: prepare(site, count)  # noqa: E731 # what the room's calls are made from
    await check(site.world, budget, doing, rows)


async def test_every_call_of_the_room_has_a_budget() -> None:
    services = ("PackagingService/", "AdvisoryService/", "TrustService/")
    ours = {name.removeprefix("/fleetwright.v1.") for name in METHODS}
    expected = {name for name in ours if name.startswith(services)}
    expected |= {"AgentService/FetchMetadata", "AgentService/DownloadArtefact"}
    assert set(CALLS) | NOT_HERE == expected
