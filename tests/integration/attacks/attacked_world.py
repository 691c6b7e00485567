"""A server in an attacker's hands, and the agent's program beside it: with files, keys and calls of its own.

Everything is real: the factory made the package, the server speaks mutual TLS on ports of this machine, the
agent is the program that hosts run, and what became of a deployment is read from ``fleetwright packages
deployments``. Only what the attacker would change is changed: files in the store, rows, or the answers that
the server's process gives, signed with the keys that lie on it where an attack has those.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import packaging_service_pb2 as pb2
from tuf.api.metadata import MetaFile, Snapshot, TargetFile, Targets, Timestamp

from controlplane.bootstrap.packaging import PackagingRoom
from controlplane.packaging.agent_downloads import AgentDownloads
from controlplane.packaging.downloads import Piece
from controlplane.packaging.repository import Repository
from controlplane.trust.keys import SigningKey, load_key
from controlplane.trust.layout import Layout
from controlplane.trust.tuf import publishing
from controlplane.trust.tuf.ceremony import initialise, load_online
from controlplane.trust.tuf.roles import Expiries, OnlineKeys, Target, Thresholds
from controlplane.trust.tuf.state import RepositoryState, read
from tests.integration.cli.command import Command, Ended
from tests.integration.factory.factory_world import Factory
from tests.integration.factory.test_service_advisories import export, imported, record
from tests.integration.factory.test_service_whole_way import made as packaged
from tests.support.agent_program import online
from tests.support.folders import make_folder
from tests.support.in_process import LocalSite, serving
from tests.support.process import spawn
from tests.support.site import HOST

AGENT = "node-1"
PACKAGE = "demo-pkg@1.2.3"
CHANNEL = "stable"

POLICY = """
task_kinds = ["install"]
[install]
trusted_root = "{root}"
channels = ["stable"]
prefix = "{prefix}"
"""

Pieces = Callable[[int], AsyncGenerator[Piece, None]]
"""What is sent of a file from an offset on."""


@dataclass(frozen=True)
class Released:
    """A data folder in which a package is released, and what the ceremony made beside it."""

    folder: Path
    root: Path
    offline: Path
    package: str
    """Its name, packages/ and its digest."""
    path: str
    """Its target's path."""


async def made(folder: Path) -> Released:
    """Make a data folder, and let the server's own factory release a wheel in it."""
    data, offline = make_folder(folder / "data"), folder / "offline"
    ceremony = initialise(
        offline,
        Layout(data).release_trust,
        now=datetime.now(UTC),
        thresholds=Thresholds(),
        expiries=Expiries(),
        channels=[CHANNEL],
    )
    async with serving(data) as site:
        factory = Factory(site, None)  # type: ignore[arg-type]  # its stages are the factory's own
        await imported(factory, export(record(1)))
        ended = await packaged(factory)
        found = await factory.calls.GetPackage(pb2.GetPackageRequest(name=ended.package))
    return Released(data, ceremony.trusted_root, offline, ended.package, found.package.target_path)


@dataclass
class Lies:
    """What the server's process answers in the place of the truth; nothing at first."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Of the metadata, by name."""
    bytes_of: dict[str, Pieces] = field(default_factory=dict)
    """By digest."""


class LyingDownloads:
    """What serves agents, in the hands of who took the server over."""

    def __init__(self, honest: AgentDownloads, lies: Lies) -> None:
        self._honest, self._lies = honest, lies

    async def metadata(self, file_name: str) -> bytes:
        """Return a file of the metadata, or a lie."""
        if file_name in self._lies.files:
            return self._lies.files[file_name]
        return await self._honest.metadata(file_name)

    async def artefact(self, agent_id: str, sha256: str, offset: int) -> AsyncGenerator[Piece, None]:
        """Yield bytes, or others."""
        lie = self._lies.bytes_of.get(sha256)
        async for piece in lie(offset) if lie else self._honest.artefact(agent_id, sha256, offset):
            yield piece


@dataclass
class Attacked:
    """The server, its attacker's means, and what the operator sees."""

    site: LocalSite
    released: Released
    lies: Lies
    fleetwright: Command
    prefix: Path

    @property
    def repository(self) -> Repository:
        assert self.site.server is not None
        return self.site.server.rooms.packaging.releases.repository

    @property
    def keys(self) -> OnlineKeys:
        """The keys that lie on the server, as whoever takes it over has them."""
        return load_online(Layout(self.site.folder).release_trust).keys

    @property
    def offline_key(self) -> SigningKey:
        """One of the keys of ``targets``, of which two are needed: as stolen from one of their holders."""
        return load_key(self.released.offline / "targets-1.pem")

    @property
    def sha256(self) -> str:
        return self.released.package.partition("/")[2]

    @property
    def stored(self) -> Path:
        """The package in the server's store."""
        return self.site.folder / "packages" / "sha256" / self.sha256[:2] / self.sha256

    async def state(self) -> RepositoryState:
        return await self.repository.state()

    async def publish(self) -> RepositoryState:
        """Sign the snapshot and the timestamp again, as with every publication."""

        def again(state: RepositoryState, keys: OnlineKeys) -> RepositoryState:
            return publishing.seal(state, state, keys, datetime.now(UTC), Expiries()).state

        async def nothing_more(*_: object) -> None: ...

        return await self.repository.change(again, nothing_more)

    async def publish_channel(self) -> RepositoryState:
        """Sign the channel again too, with one target more."""
        more = Target(f"{CHANNEL}/other/other-1.tar.gz", 1, "0" * 64)

        def again(state: RepositoryState, keys: OnlineKeys) -> RepositoryState:
            return publishing.publish(state, CHANNEL, [more], keys, datetime.now(UTC), Expiries()).state

        async def nothing_more(*_: object) -> None: ...

        return await self.repository.change(again, nothing_more)

    async def lie_of_time(self, expires: datetime) -> None:
        """Show a timestamp that ends at ``expires``, truly signed."""
        stamp = read(Timestamp, (await self.state()).timestamp)
        stamp.signed.version += 1
        self.lies.files["timestamp.json"] = publishing.signed_by(stamp, [self.keys.timestamp], expires)

    async def lie_of(self, name: str, version: int, content: bytes) -> None:
        """Show another file of a role, with a snapshot and a timestamp that name it, truly signed."""
        state, keys, end = await self.state(), self.keys, datetime.now(UTC) + timedelta(days=1)
        snapshot, stamp = read(Snapshot, state.snapshot), read(Timestamp, state.timestamp)
        snapshot.signed.meta[f"{name}.json"] = MetaFile(version)
        snapshot.signed.version += 1
        stamp.signed.version += 1
        stamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
        self.lies.files |= {
            f"{version}.{name}.json": content,
            f"{snapshot.signed.version}.snapshot.json": publishing.signed_by(snapshot, [keys.snapshot], end),
            "timestamp.json": publishing.signed_by(stamp, [keys.timestamp], end),
        }

    async def lie_of_release(self, targets: Mapping[str, bytes]) -> None:
        """Show a channel that releases other bytes under paths, truly signed."""
        channel = read(Targets, (await self.state()).channels[CHANNEL])
        channel.signed.version += 1
        for path, content in targets.items():
            channel.signed.targets[path] = TargetFile.from_data(path, content, ["sha256"])
        end = datetime.now(UTC) + timedelta(days=1)
        signed = publishing.signed_by(channel, [self.keys.channels[CHANNEL]], end)
        await self.lie_of(CHANNEL, channel.signed.version, signed)

    async def deploy(self) -> Ended:
        """Deploy the package to the agent, and wait for the end."""
        return await self.fleetwright("packages", "deploy", PACKAGE, "--to", "*", "--wait")

    async def deployed(self) -> Any:
        """Deploy, and return the deployment as ``packages deployments`` has it then."""
        await self.deploy()
        return await self.last()

    async def last(self) -> Any:
        """Return the last deployment, as ``packages deployments`` has it."""
        shown = await self.fleetwright("packages", "deployments", "--latest", "-o", "json")
        [deployment] = shown.document["deployments"]
        return deployment

    async def is_refused(self, code: str, why: str = "") -> None:
        """Check that a deployment fails for the reason ``code``, and that nothing of it is on the host."""
        before = self.installed()
        deployment = await self.deployed()
        said = (deployment["status"], deployment.get("reasonCode"))
        assert said == ("DEPLOYMENT_STATUS_FAILED", code), deployment
        assert why in deployment["reason"], deployment["reason"]
        assert self.installed() == before
        table = await self.fleetwright("packages", "deployments", "--status", "FAILED")
        assert AGENT in table.out
        assert code in table.out

    async def is_installed(self) -> None:
        """Check that a deployment succeeds, as without an attack."""
        deployment = await self.deployed()
        assert deployment["status"] == "DEPLOYMENT_STATUS_INSTALLED", deployment

    def installed(self) -> list[str]:
        """What lies in the prefix."""
        return sorted(str(path) for path in self.prefix.rglob("*")) if self.prefix.exists() else []


@asynccontextmanager
async def attacked(
    folder: Path, released: Released, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Attacked]:
    """Serve a folder with a way to lie in it, and run an agent."""
    lies, honest = Lies(), PackagingRoom.agent_downloads
    monkeypatch.setattr(PackagingRoom, "agent_downloads", lambda room: LyingDownloads(honest(room), lies))
    prefix, state = scratch / "opt", scratch / "state"
    async with serving(folder) as site:
        await _enrolled(site, state)
        (state / "policy.toml").write_text(POLICY.format(root=released.root, prefix=prefix))
        agent = await spawn("fleetwright-agent", "run", f"--state={state}", devnull=True)
        try:
            await online(site, AGENT)
            yield Attacked(site, released, lies, Command(scratch).calling(site), prefix)
        finally:
            if agent.returncode is None:
                agent.terminate()
            await agent.communicate()


async def _enrolled(site: LocalSite, state: Path) -> None:
    _, token = await site.admin().token()
    enrolling = await spawn(
        "fleetwright-agent",
        "enroll",
        f"--server={HOST}:{site.ports.enrollment}",
        f"--agent-address={HOST}:{site.ports.agents}",
        f"--agent-id={AGENT}",
        f"--state={state}",
        variables={"FLEETWRIGHT_JOIN_TOKEN": token},
    )
    _, errors = await enrolling.communicate()
    assert enrolling.returncode == 0, errors.decode()
