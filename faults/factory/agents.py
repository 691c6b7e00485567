"""The releases as an agent has them: fetched and judged by the agents' own code, from the trusted root on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fleetwright.v1 import agent_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import packaging_service_pb2 as pb2
from fleetwright.verify.errors import VerificationError
from fleetwright.verify.evidence import ATTESTATIONS_SUFFIX

from agent_sim.protocol.connection import agent_channel
from agent_sim.protocol.identity_folder import FolderIdentityStore
from agent_sim.protocol.served import ServedFiles
from agent_sim.released.downloading import Download
from agent_sim.released.reasons import InstallError
from agent_sim.released.verifying import Repository
from faults.factory.site import CHANNEL, Factory


@dataclass(frozen=True)
class Channel:
    """What the metadata of a channel says: how often it was published, and the digest at each path."""

    version: int
    packages: Mapping[str, str]
    evidence: Mapping[str, str]


class Reader:
    """An agent that reads releases and installs nothing."""

    def __init__(self, files: ServedFiles, repository: Repository, folder: Path) -> None:
        self._files = files
        self._repository = repository
        self._folder = folder

    async def channel(self) -> Channel:
        """Return what is released, by the newest metadata that the server gives."""
        stamp = json.loads(await self._files.metadata("timestamp.json"))["signed"]
        version = stamp["meta"]["snapshot.json"]["version"]
        snapshot = json.loads(await self._files.metadata(f"{version}.snapshot.json"))["signed"]
        version = snapshot["meta"][f"{CHANNEL}.json"]["version"]
        signed = json.loads(await self._files.metadata(f"{version}.{CHANNEL}.json"))["signed"]
        targets = {path: target["hashes"]["sha256"] for path, target in signed["targets"].items()}
        evidence = {path: one for path, one in targets.items() if path.endswith(ATTESTATIONS_SUFFIX)}
        packages = {path: one for path, one in targets.items() if path not in evidence}
        return Channel(signed["version"], packages, evidence)

    async def problem(self, package: pb2.Package) -> str:
        """Fetch a package and judge it as an agent does that installs it; returns what is wrong, or ""."""
        sha256, file = package.name.partition("/")[2], self._folder / "package"
        try:
            release = await self._repository.find(package.target_path, sha256)
            await Download(self._files).fetch(release, file, lambda _: None, lambda _: None)
            report = await self._repository.judge(package.target_path, file)
        except (VerificationError, InstallError) as error:
            return f"{package.target_path}: {error}"
        finally:
            file.unlink(missing_ok=True)
        return "" if report.ok else f"{package.target_path}: {report}"


@asynccontextmanager
async def reader_of(factory: Factory) -> AsyncIterator[Reader]:
    """Give the world's agent as a reader."""
    world = factory.world
    identity = FolderIdentityStore(world.folder / "identities" / world.agents[0]).current()
    if identity is None:
        raise AssertionError("the world's agent was not enrolled")
    files, folder = ServedFiles(), world.folder / "reader"
    folder.mkdir(exist_ok=True)
    async with agent_channel(world.address, identity) as channel:
        files.use(pb2_grpc.AgentServiceStub(channel))
        with ThreadPoolExecutor(1) as executor:
            root = factory.trusted_root.read_bytes()
            now = lambda: datetime.now(UTC)  # noqa: E731 # one line, used here alone
            yield Reader(files, Repository(folder / "state", root, files, now, executor), folder)
