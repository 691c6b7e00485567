"""Asking syft and Trivy, where they are installed, what they find in a package's files.

Each is an untrusted process: its bytes are pinned, it runs in isolation without network, and what it wrote is
read in isolation as well. One that is absent or fails is said so and adds nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from controlplane.packaging.isolation.external import run_program
from controlplane.packaging.isolation.records import (
    MEBIBYTE,
    IsolationFailed,
    IsolationLimits,
    Program,
    ProgramOutcome,
)
from controlplane.packaging.sbom.external import MAX_OUTPUT, TOOLS, Tool, find_program, version_of
from controlplane.packaging.sbom.tools import NOT_RUN
from controlplane.packaging.stages.stage import Job
from controlplane.packaging.stages.workshop import LIMITS, Workshop

TREE: Final = "tree"
_LIMITS: Final = replace(
    LIMITS,
    wall=timedelta(minutes=10),
    # Programs in Go reserve far more than they use, and one thread for each processor and more.
    memory_bytes=8 * 1024 * MEBIBYTE,
    processes=256,
    open_files=1_024,
    result_bytes=MAX_OUTPUT,
)
_ENVIRONMENT: Final = {"XDG_CACHE_HOME": "tmp/cache", "TRIVY_CACHE_DIR": "tmp/trivy"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking a tool, in the shape that ``sbom.jobs.write_documents`` takes."""

    name: str
    version: str
    document: Path | None = None

    def told(self) -> dict[str, str]:
        """Return it as the job takes it."""
        return {
            "name": self.name,
            "version": self.version,
            "document": self.document.name if self.document else "",
        }


@dataclass(frozen=True, slots=True)
class Scanners:
    """Which tools there are on this machine."""

    find: Callable[[str], Path | None] = find_program
    pinned: Mapping[str, str] = field(default_factory=dict)
    """By name, the SHA-256 that a tool's program must have; whatever is there where none is given."""
    limits: IsolationLimits = _LIMITS

    def present(self) -> dict[str, Path]:
        """Return by name the programs that are installed."""
        found = {tool.name: self.find(tool.name) for tool in TOOLS}
        return {name: path.resolve() for name, path in found.items() if path is not None}

    async def ask(self, workshop: Workshop, job: Job, tree: Path) -> list[Asked]:
        """Have each tool look at the files below ``tree``."""
        present = self.present()
        asked = []
        for tool in TOOLS:
            if tool.name not in present:
                asked.append(Asked(tool.name, f"{NOT_RUN}absent"))
                continue
            asked.append(await self._ask(workshop, job, tool, present[tool.name], tree))
        return asked

    async def _ask(self, workshop: Workshop, job: Job, tool: Tool, program: Path, tree: Path) -> Asked:
        try:
            digest = await asyncio.to_thread(_digest, program)
            pinned = self.pinned.get(tool.name, digest)
            version = await self._run(workshop, job, program, pinned, tool.version_arguments, {})
            found = await self._run(workshop, job, program, pinned, _pointed(tool.arguments), {TREE: tree})
        except (IsolationFailed, OSError) as error:
            job.say("warning", f"{tool.name} did not look: {error}")
            return Asked(tool.name, f"{NOT_RUN}it failed: {str(error)[:300]}")
        if version.status or found.status:
            said = (found.stderr or version.stderr)[-300:]
            job.say("warning", f"{tool.name} ended with {found.status or version.status}: {said}")
            return Asked(tool.name, f"{NOT_RUN}it failed with status {found.status or version.status}")
        document = job.folder / f"{tool.name}.json"
        await asyncio.to_thread(document.write_bytes, found.stdout)
        return Asked(tool.name, f"{version_of(version.stdout)} (sha256:{digest})", document)

    async def _run(
        self,
        workshop: Workshop,
        job: Job,
        program: Path,
        sha256: str,
        arguments: Sequence[str],
        inputs: Mapping[str, Path],
    ) -> ProgramOutcome:
        wanted = Program(program, sha256, arguments, inputs, environment=_ENVIRONMENT)
        return await run_program(
            wanted, self.limits, settings=workshop.settings, log=lambda line: job.say("info", line)
        )


def _pointed(arguments: Sequence[str]) -> list[str]:
    """Return a tool's arguments, which speak of the working folder, for the folder of inputs."""
    there = {"dir:.": f"dir:in/{TREE}", ".": f"in/{TREE}"}
    return [there.get(argument, argument) for argument in arguments]


def _digest(program: Path) -> str:
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
