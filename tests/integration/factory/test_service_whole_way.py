"""The whole way through a real server with the factory's own stages: from an upload to a download."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2, task_service_pb2
from fleetwright.v1 import packaging_service_pb2 as pb2
from fleetwright.verify.bundle import verify_bundle

from controlplane.packaging.signing.keys import create_key
from controlplane.trust.layout import DEB_ORIGIN, Layout
from controlplane.trust.tuf.ceremony import initialise
from controlplane.trust.tuf.roles import Expiries, Thresholds
from tests.integration.factory.factory_world import ENDED, Factory
from tests.integration.factory.test_service_advisories import export, imported, record
from tests.support.in_process import serving
from tests.unit.packaging.archives import good

WHEEL = good.wheel()
CRITICAL = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]


@pytest.fixture
def trusted(folder: Path) -> Path:
    """A data folder with the keys that release packages; returns the first root."""
    made = initialise(
        folder.parent / "offline",
        Layout(folder).release_trust,
        now=datetime.now(UTC),
        thresholds=Thresholds(),
        expiries=Expiries(),
        channels=["stable", "beta"],
    )
    return made.trusted_root


@pytest.fixture
async def factory(folder: Path, trusted: Path) -> AsyncIterator[Factory]:
    async with serving(folder, isolation_uid=60_000 + hash(folder) % 5_000) as site:
        yield Factory(site, None)  # type: ignore[arg-type]  # its stages are the factory's own


def against(name: str, number: int, **more: Any) -> dict[str, Any]:
    found = record(number, timedelta(minutes=60 - number))
    found["affected"][0] |= {"package": {"ecosystem": "PyPI", "name": name}, "versions": ["1.2.3"]}
    return found | more


async def made(factory: Factory, data: bytes = WHEEL, name: str = "", **fields: Any) -> pb2.Pipeline:
    """Upload an artefact and wait for the end of its pipeline."""
    upload = await factory.start(data, file_name=name or "demo_pkg-1.2.3-py3-none-any.whl")
    artefact = upload.artefact or (await factory.send(upload, data, size=1 << 16)).artefact
    request = pb2.CreatePipelineRequest(artefact=artefact, **fields)
    created = (await factory.calls.CreatePipeline(request)).pipeline
    ended = await factory.until(created.name)
    if ended.state == pb2.PIPELINE_STATE_ERROR:
        print(ended.reason, [line.text for line in await factory.log(created.name)])
    return ended


async def package(factory: Factory, name: str) -> pb2.Package:
    found: pb2.Package = (await factory.calls.GetPackage(pb2.GetPackageRequest(name=name))).package
    return found


async def downloaded(factory: Factory, stub: Any, name: str) -> bytes:
    request = agent_service_pb2.DownloadArtefactRequest(sha256=name.partition("/")[2])
    return b"".join([piece.data async for piece in stub.DownloadArtefact(request)])


async def test_a_wheel_becomes_a_package_that_verifies_and_that_agents_can_have(
    factory: Factory, trusted: Path, tmp_path: Path
) -> None:
    await imported(factory, export(against("other", 1)))
    ended = await made(factory)
    assert ended.state == pb2.PIPELINE_STATE_PASSED
    assert (ended.package_name, ended.package_version, ended.artefact_type) == ("demo-pkg", "1.2.3", "wheel")
    found = await package(factory, ended.package)
    assert (found.decision, found.channel) == (pb2.POLICY_DECISION_PASS, "stable")
    assert {"provenance", "sbom", "scan", "verdict"} <= set(found.attestations)
    listed = await factory.calls.ListPackages(
        pb2.ListPackagesRequest(filter='package_name = "demo-pkg" AND decision = PASS')
    )
    assert [one.name for one in listed.packages] == [ended.package]

    bundle = tmp_path / "bundle.zip"
    call = factory.calls.ExportBundle(pb2.ExportBundleRequest(name=ended.package))
    content = b"".join([piece.data async for piece in call])
    await asyncio.to_thread(bundle.write_bytes, content)
    root = await asyncio.to_thread(trusted.read_bytes)
    report = verify_bundle(bundle, root, datetime.now(UTC))
    assert report.ok, report.as_dict()

    _, token = await factory.site.admin().token()
    agent = await factory.site.enroll("node-1", token)
    stub = agent.connect()
    stamp = await stub.FetchMetadata(agent_service_pb2.FetchMetadataRequest(file_name="timestamp.json"))
    assert b'"timestamp"' in stamp.content
    data = await downloaded(factory, stub, ended.package)
    assert hashlib.sha256(data).hexdigest() == ended.package.partition("/")[2]
    ranged = factory.calls.DownloadPackage(
        pb2.DownloadPackageRequest(name=ended.package, offset=10, length=20)
    )
    assert b"".join([piece.data async for piece in ranged]) == data[10:30]
    for part, version in (("cyclonedx", "specVersion"), ("spdx", "spdxVersion")):
        call = factory.calls.DownloadPackage(pb2.DownloadPackageRequest(name=ended.package, part=part))
        assert version in json.loads(b"".join([piece.data async for piece in call]))
    assert await factory.site.metric("fleetwright_download_bytes_total", caller="agent") == len(data)

    deployed = await factory.calls.DeployPackage(
        pb2.DeployPackageRequest(package=ended.package, selector="*", request_id="d1")
    )
    assert deployed.batch.target_count == 1
    deployments = await factory.calls.ListDeployments(
        pb2.ListDeploymentsRequest(filter='agent_id = "node-1" AND latest = true')
    )
    [deployment] = deployments.deployments
    task = await factory.site.admin().task(deployment.task)
    assert (task.kind, task.spec.install.package) == ("install", ended.package)
    assert task.state == task_service_pb2.TASK_STATE_QUEUED


async def test_what_turns_bad_is_withdrawn_and_comes_back_by_an_exception(
    factory: Factory, folder: Path
) -> None:
    await imported(factory, export(against("other", 1)))
    name = (await made(factory)).package
    _, token = await factory.site.admin().token()
    stub = (await factory.site.enroll("node-1", token)).connect()
    assert await downloaded(factory, stub, name)

    known = export(against("other", 1), against("demo-pkg", 2, aliases=["CVE-2030-1234"], severity=CRITICAL))
    assert (await imported(factory, known)).changed_count == 1
    bad = await package(factory, name)
    assert (bad.decision, bad.channel, bad.vulnerabilities.critical) == (pb2.POLICY_DECISION_FAIL, "", 1)
    assert bad.decision_reasons
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await downloaded(factory, stub, name)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    findings = await factory.calls.ListFindings(pb2.ListFindingsRequest(package=name))
    assert [(one.vulnerability, one.severity) for one in findings.findings] == [("CVE-2030-1234", "critical")]

    request = pb2.CreateExceptionRequest(package=name, vulnerability="TEST-2", justification="a test")
    request.valid_for.FromSeconds(3600)
    asked = (await factory.calls.CreateException(request)).exception
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await factory.calls.ApproveException(pb2.ApproveExceptionRequest(name=asked.name))
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    listed = await factory.calls.ListExceptions(pb2.ListExceptionsRequest(filter="approved = false"))
    assert [one.name for one in listed.exceptions] == [asked.name]


async def test_what_policy_refuses_is_kept_for_its_evidence_and_never_released(factory: Factory) -> None:
    await imported(factory, export(against("demo-pkg", 2, severity=CRITICAL)))
    ended = await made(factory)
    assert (ended.state, ended.vulnerabilities.critical) == (pb2.PIPELINE_STATE_REFUSED, 1)
    found = await package(factory, ended.package)
    assert (found.decision, found.channel, found.target_path) == (pb2.POLICY_DECISION_FAIL, "", "")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await factory.calls.DeployPackage(pb2.DeployPackageRequest(package=ended.package, selector="*"))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_without_advisories_nothing_passes(factory: Factory) -> None:
    ended = await made(factory)
    assert ended.state == pb2.PIPELINE_STATE_ERROR
    assert ended.reason.startswith("SCAN: ")
    await imported(factory, export(against("other", 1)))
    await factory.calls.RetryPipeline(pb2.RetryPipelineRequest(name=ended.name))
    again = await factory.until(ended.name, lambda one: one.run_count == 2 and one.state >= ENDED)
    assert again.state == pb2.PIPELINE_STATE_PASSED


async def test_a_deb_is_signed_with_the_origin_key(factory: Factory, folder: Path) -> None:
    await asyncio.to_thread(create_key, Layout(folder).release_trust / DEB_ORIGIN, "Test <test@example.org>")
    await imported(factory, export(against("other", 1)))
    ended = await made(factory, good.deb(), "demo_2.0-1_amd64.deb")
    signed = {one.kind: one for one in ended.signatures}["openpgp"]
    assert signed.state in ("VERIFIED", "SIGNED")


async def test_a_server_without_keys_starts_and_says_what_is_missing(folder: Path) -> None:
    async with serving(folder) as site:
        factory = Factory(site, None)  # type: ignore[arg-type]  # its stages are the factory's own
        with pytest.raises(grpc.aio.AioRpcError, match="trust init") as error:
            await factory.create()
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
