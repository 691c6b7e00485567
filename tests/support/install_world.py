"""Packages that the factory built, released in a repository made on the spot, and the files as a server gives
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fleetwright.v1 import agent_service_pb2, work_pb2
from fleetwright.verify.evidence import attestations_path
from fleetwright.verify.keys import Purpose

from agent_sim.host import FilesError, FileUnknownError, Piece
from agent_sim.released.patience import Patience
from controlplane.packaging.records import ArtefactFacts, ArtefactType
from tests.unit.packaging.building import trees
from tests.unit.verify import evidence_world as world

QUICK = Patience(tries=3, base=timedelta(milliseconds=1), cap=timedelta(milliseconds=1))
PIECE = 1_000


@dataclass(frozen=True)
class Package:
    """A package file, and where it is released."""

    content: bytes
    path: str
    name: str
    version: str

    @property
    def sha256(self) -> str:
        return world.sha(self.content)

    def assignment(self, attempt_id: str = "a1", **changes: Any) -> agent_service_pb2.Assignment:
        parts = {
            "package": f"packages/{self.sha256}",
            "target_path": self.path,
            "package_name": self.name,
            "version": self.version,
        }
        spec = work_pb2.TaskSpec(install=work_pb2.InstallSpec(**(parts | changes)))
        return agent_service_pb2.Assignment(attempt_id=attempt_id, task="tasks/t1", number=1, spec=spec)


def files_of(version: str) -> dict[str, tuple[bytes, int]]:
    """A tool that prints its version, and a file with random-looking bytes that do not compress."""
    noise = b"".join(bytes.fromhex(world.sha(f"{version}{number}".encode())) for number in range(400))
    return {
        f"tool-{version}/bin/tool": (f"#!/bin/sh\necho tool {version}\n".encode(), 0o755),
        f"tool-{version}/lib/data.bin": (noise, 0o644),
        f"tool-{version}/VERSION": (version.encode(), 0o644),
    }


def archive(
    folder: Path,
    version: str = "1.0",
    *,
    files: Mapping[str, tuple[bytes, int]] | None = None,
    channel: str = "stable",
    name: str = "tool",
    links: Mapping[str, str] | None = None,
    **overrides: Any,
) -> Package:
    """Build an archive of our own format; ``overrides`` are fields of its manifest."""
    facts = ArtefactFacts(ArtefactType.ARCHIVE, name, version, "", "")
    parts = {"platforms": [{"os": "any", "architecture": "any"}], **overrides}
    place = folder / f"build-{name}-{version}-{len(list(folder.iterdir())) if folder.exists() else 0}"
    asked = trees.request(place, files or files_of(version), facts=facts, links=links, overrides=parts)
    made = trees.built(asked, "archive")
    content = Path(made["path"]).read_bytes()
    return Package(content, f"{channel}/{name}/{name}-{version}.tar.gz", name, version)


def deb(
    folder: Path, version: str = "1.0", *, name: str = "fleetwright-test-tool", **overrides: Any
) -> Package:
    """Build a .deb without scripts, for every architecture."""
    facts = ArtefactFacts(ArtefactType.ARCHIVE, name, version, "", "")
    parts = {"platforms": [{"os": "linux", "architecture": "any"}], **overrides}
    asked = trees.request(
        folder / f"build-{name}-{version}",
        files_of(version),
        facts=facts,
        overrides=parts,
        deb={"maintainer": "Ops <ops@example.org>", "description": "A tool\nthat does one thing."},
    )
    content = Path(trees.built(asked, "deb")["path"]).read_bytes()
    return Package(content, f"stable/{name}/{name}-{version}.deb", name, version)


def evidence(package: Package, now: datetime = world.NOW, **verdict: Any) -> bytes:
    """Attestations of a package, as lines, with a verdict that holds at ``now``."""
    built, listed = (
        world.signed(world.provenance(package.content), Purpose.PROVENANCE),
        world.signed(world.sbom(package.content), Purpose.SBOM),
    )
    scanned = world.signed(world.scan(listed, package.content), Purpose.SCAN)
    parts = {"verified": now - timedelta(minutes=5), "expires": now + timedelta(days=1), **verdict}
    judged = world.signed(world.verdict((built, listed, scanned), package.content, **parts), Purpose.VERDICT)
    return world.Attested(built, listed, scanned, judged).lines


def release(
    repository: world.Repository, package: Package, now: datetime = world.NOW, **verdict: Any
) -> None:
    """Release a package with its attestations, as the factory does."""
    lines = evidence(package, now, **verdict)
    channel = package.path.partition("/")[0]
    repository.release({package.path: package.content, attestations_path(package.path): lines}, channel)


@dataclass
class ServedRepository:
    """Implements ``ServerFiles`` over a repository; a test lets it give wrong bytes, break off, or fail."""

    repository: world.Repository = field(default_factory=world.empty_repository)
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next downloads of a package ends."""
    changed: Callable[[Piece], Piece] = lambda piece: piece
    failing: dict[str, FilesError] = field(default_factory=dict)
    """What is raised for a metadata file, by its name."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    held: str = ""
    """Digest or name of the file that does not come, or not beyond its first piece."""
    holding: asyncio.Event = field(default_factory=asyncio.Event)

    async def metadata(self, name: str) -> bytes:
        if name in self.failing:
            raise self.failing[name]
        await self._hold(name)
        if name not in self.repository.files:
            raise FileUnknownError(f"{name}: not here")
        return self.repository.files[name]

    async def artefact(self, sha256: str, offset: int) -> AsyncIterator[Piece]:
        self.asked.append((sha256, offset))
        content = self._content(sha256)
        end = offset + self.cuts.pop(0) if self.cuts and len(content) > PIECE else len(content)
        for start in range(offset, min(end, len(content)), PIECE):
            data = content[start : min(start + PIECE, end)]
            yield self.changed(Piece(start, data, len(content)))
            await self._hold(sha256)

    async def _hold(self, name: str) -> None:
        if self.held == name:
            self.holding.set()
            await asyncio.get_running_loop().create_future()

    def _content(self, sha256: str) -> bytes:
        for path, content in self.repository.targets.items():
            if path.rpartition("/")[2].startswith(sha256):
                return content
        raise FileUnknownError(f"{sha256}: not here")
