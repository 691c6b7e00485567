"""Asking Trivy: its database and a list of components in, which records affect which of them out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from controlplane.packaging.advisories.telling import Told
from controlplane.packaging.isolation.external import run_program
from controlplane.packaging.isolation.records import (
    MEBIBYTE,
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Program,
    ProgramOutcome,
)
from controlplane.packaging.records import Component
from controlplane.packaging.sbom.external import MAX_OUTPUT, find_program, version_of
from controlplane.packaging.sbom.tools import NOT_RUN
from controlplane.packaging.trivy.comparing import SECOND, Hit
from controlplane.packaging.trivy.database import ECOSYSTEMS, database, metadata, said

_LIMITS: Final = IsolationLimits(
    wall=timedelta(minutes=2),
    # Programs in Go reserve far more than they use, and one thread for each processor and more.
    memory_bytes=8 * 1024 * MEBIBYTE,
    processes=256,
    open_files=1_024,
    result_bytes=MAX_OUTPUT,
)
_ARGUMENTS: Final = (
    *("sbom", "--cache-dir", "in/cache", "--scanners", "vuln", "--format", "json", "--quiet"),
    *("--offline-scan", "--skip-db-update", "--skip-java-db-update", "--skip-vex-repo-update"),
    *("--skip-version-check", "--disable-telemetry", "in/bom.json"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Trivy says; ``hits`` is None where it was not asked, and ``version`` says why."""

    version: str
    asked: Sequence[Told] = ()
    hits: frozenset[Hit] | None = None


@dataclass(frozen=True, slots=True)
class Trivy:
    """The engine. ``scratch`` is a folder on a disk of this machine's own.

    ``pinned`` is the SHA-256 that its program must have; empty for whatever is there.
    """

    settings: IsolationSettings
    scratch: Path
    pinned: str = ""
    find: Callable[[str], Path | None] = find_program
    limits: IsolationLimits = field(default=_LIMITS)

    @property
    def ecosystems(self) -> Collection[str]:
        """The ecosystems of which it is asked."""
        return ECOSYSTEMS

    async def ask(self, told: Sequence[Told]) -> Answer:
        """Ask which of the records affect the components that they are told of. Raises nothing."""
        program = self.find(SECOND)
        if program is None:
            return Answer(f"{NOT_RUN}absent")
        asked = [one for one in told if said(one)]
        try:
            with tempfile.TemporaryDirectory(dir=self.scratch, prefix="trivy-") as folder:
                return await self._ask(program.resolve(), asked, Path(folder))
        except (IsolationFailed, OSError, ValueError) as error:
            return Answer(f"{NOT_RUN}it failed: {str(error)[:300]}")

    async def _ask(self, program: Path, asked: Sequence[Told], folder: Path) -> Answer:
        digest = await asyncio.to_thread(_digest, program)
        pinned = self.pinned or digest
        version = await self._run(program, pinned, ("--version",), {})
        inputs = await asyncio.to_thread(_prepared, asked, folder)
        found = await self._run(program, pinned, _ARGUMENTS, inputs)
        if version.status or found.status:
            why = (found.stderr or version.stderr)[-300:]
            return Answer(f"{NOT_RUN}it ended with status {version.status or found.status}: {why}")
        name = f"{version_of(version.stdout)} (sha256:{digest})"
        return Answer(name, asked, _hits(found.stdout))

    async def _run(
        self, program: Path, sha256: str, arguments: Sequence[str], inputs: Mapping[str, Path]
    ) -> ProgramOutcome:
        return await run_program(
            Program(program, sha256, arguments, inputs), self.limits, settings=self.settings
        )


def _prepared(asked: Sequence[Told], folder: Path) -> dict[str, Path]:
    cache, bom = folder / "cache", folder / "bom.json"
    (cache / "db").mkdir(parents=True)
    (cache / "db" / "trivy.db").write_bytes(database(asked))
    (cache / "db" / "metadata.json").write_bytes(metadata())
    bom.write_bytes(_bom({one.component.purl: one.component for one in asked}))
    return {"cache": cache, "bom.json": bom}


def _bom(components: Mapping[str, Component]) -> bytes:
    listed = [
        {"bom-ref": purl, "type": "library", "name": one.name, "version": one.version, "purl": purl}
        for purl, one in sorted(components.items())
    ]
    return json.dumps(
        {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": listed}
    ).encode()


def _hits(output: bytes) -> frozenset[Hit]:
    """Return what a report says. Raises ``ValueError`` for what is none."""
    document = json.loads(output)
    try:
        return frozenset(
            (str(one["PkgIdentifier"]["BOMRef"]), str(one["VulnerabilityID"]))
            for result in document.get("Results") or ()
            for one in result.get("Vulnerabilities") or ()
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its report is none of this version ({type(error).__name__}: {error})") from None


def _digest(program: Path) -> str:
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
