"""Simulated agents that are told to install a package: each verifies it for real, and installs nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest_asyncio
from fleetwright.v1 import agent_service_pb2, work_pb2
from google.protobuf.duration_pb2 import Duration

from agent_sim.fleet.profiles import Profile
from agent_sim.fleet.running import Outputs, run_fleet
from agent_sim.host import FileUnknownError, Piece
from tests.integration.agent_sim.protocol_authority import Authority
from tests.integration.agent_sim.protocol_server import TasksPeer, acknowledge
from tests.integration.agent_sim.test_fleet_run import ObligingServer, config
from tests.support.install_world import Package, ServedRepository, archive, release
from tests.unit.verify import evidence_world as world

AGENTS = 5


class ReleasingServer(ObligingServer):
    """Tells every agent to install one package, and keeps the results."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self.files = ServedRepository()
        self.package: Package
        self.results: list[work_pb2.AttemptResult] = []
        self.progress: list[agent_service_pb2.AttemptProgress] = []
        self.fetched: list[str] = []
        self.all_done = asyncio.Event()

    async def _work(self, peer: TasksPeer) -> None:
        await peer._received.get()
        opened = agent_service_pb2.TasksOpened(linger=Duration(seconds=60))
        peer.send(agent_service_pb2.TasksResponse(opened=opened))
        self.given += 1
        assignment = self.package.assignment(f"t{self.given}")
        assignment.task = f"tasks/{self.given}"
        peer.send(agent_service_pb2.TasksResponse(assignment=assignment))
        while (message := await peer._received.get()) is not None:
            if message.HasField("progress"):
                self.progress.append(message.progress)
            if message.HasField("finished"):
                self.results.append(message.finished.result)
                peer.send(acknowledge(message.finished.attempt_id))
                if len(self.results) == AGENTS:
                    self.all_done.set()

    async def FetchMetadata(
        self, request: agent_service_pb2.FetchMetadataRequest, context: Any
    ) -> agent_service_pb2.FetchMetadataResponse:
        self.fetched.append(request.file_name)
        try:
            content = await self.files.metadata(request.file_name)
        except FileUnknownError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return agent_service_pb2.FetchMetadataResponse(content=content)

    async def DownloadArtefact(
        self, request: agent_service_pb2.DownloadArtefactRequest, context: Any
    ) -> AsyncIterator[agent_service_pb2.DownloadArtefactResponse]:
        async for piece in self.files.artefact(request.sha256, request.offset):
            yield agent_service_pb2.DownloadArtefactResponse(
                offset=piece.offset, data=piece.data, total_bytes=piece.total_bytes
            )


@pytest_asyncio.fixture
async def releasing(authority: Authority, tmp_path: Path) -> AsyncIterator[ReleasingServer]:
    server = ReleasingServer(authority)
    server.package = archive(tmp_path)
    server.trusted_root = world.ceremony().online.trusted_root
    release(server.files.repository, server.package, datetime.now(UTC))
    await server.start()
    serving = asyncio.create_task(server.oblige())
    yield server
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await server.stop()


async def run_until_all_answered(
    server: ReleasingServer,
    packages: Path | None = None,
    trusted_root: bytes | None = None,
    identities: Path | None = None,
) -> None:
    settings = replace(
        config(server, {Profile.HEALTHY: 1.0}, None),
        trusted_root=trusted_root,
        packages=packages,
        identities=identities,
    )
    running = asyncio.create_task(run_fleet(settings, Outputs(), duration=20.0))
    async with asyncio.timeout(30):
        await server.all_done.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_every_simulated_agent_verifies_for_itself_and_installs_nothing(
    releasing: ReleasingServer, tmp_path: Path
) -> None:
    state = tmp_path / "clients"
    await run_until_all_answered(releasing, state)
    size = len(releasing.package.content)
    assert len(releasing.results) == AGENTS
    for result in releasing.results:
        assert result.outcome == work_pb2.OUTCOME_SUCCEEDED, result.reason
        assert result.install.status == work_pb2.DEPLOYMENT_STATUS_INSTALLED
        assert result.install.reason_code == "SIMULATED"
        assert "no file was installed" in result.reason
        assert (len(result.install.verified), result.install.downloaded_bytes) == (9, size)
    assert sum(sha256 == releasing.package.sha256 for sha256, _ in releasing.files.asked) == AGENTS
    assert {path.name for path in state.iterdir()} == {f"sim-{number}" for number in range(1, AGENTS + 1)}
    assert not list(state.rglob(releasing.package.sha256))
    assert {report.deployment_status for report in releasing.progress} <= {2, 3}


async def test_every_simulated_agent_refuses_bytes_that_were_swapped(releasing: ReleasingServer) -> None:
    size = len(releasing.package.content)

    def swapped(piece: Piece) -> Piece:
        return replace(piece, data=bytes(len(piece.data))) if piece.total_bytes == size else piece

    releasing.files.changed = swapped
    await run_until_all_answered(releasing)
    assert {result.install.reason_code for result in releasing.results} == {"WRONG_BYTES"}
    assert {result.outcome for result in releasing.results} == {work_pb2.OUTCOME_FAILED}


async def test_the_root_of_an_option_is_taken_where_the_server_gave_another(
    releasing: ReleasingServer,
) -> None:
    releasing.trusted_root = b"{}"
    await run_until_all_answered(releasing, trusted_root=world.ceremony().online.trusted_root)
    assert {result.outcome for result in releasing.results} == {work_pb2.OUTCOME_SUCCEEDED}


async def test_a_fleet_without_a_root_refuses_and_says_why(releasing: ReleasingServer) -> None:
    releasing.trusted_root = b""
    await run_until_all_answered(releasing)
    for result in releasing.results:
        assert result.outcome == work_pb2.OUTCOME_REFUSED
        assert "the server had none when this agent was enrolled" in result.reason


async def test_a_fleet_that_comes_back_with_its_identities_has_its_root_still(
    releasing: ReleasingServer, tmp_path: Path
) -> None:
    identities = tmp_path / "identities"
    await run_until_all_answered(releasing, identities=identities)
    releasing.results.clear()
    releasing.all_done.clear()
    releasing.trusted_root = b"{}"
    await run_until_all_answered(releasing, identities=identities)
    assert {result.outcome for result in releasing.results} == {work_pb2.OUTCOME_SUCCEEDED}
