"""Trivy as the second engine of a scan: run in isolation, over our own advisories, pinned to its bytes.

Who configures a second engine wants no scan without it. So whatever keeps it from an answer fails the scan:
it is not there, it is another program than the pinned one, it ends badly, or what it wrote is no answer. It
is an untrusted process: no network, no keys, nothing of the server's to read but what is made for it here.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from controlplane.packaging.advisories.engines import trivy
from controlplane.packaging.advisories.engines.records import Answers, Asking, EngineError, Question
from controlplane.packaging.isolation.external import run_program
from controlplane.packaging.isolation.records import (
    MEBIBYTE,
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Program,
    ProgramOutcome,
)
from controlplane.packaging.sbom.external import version_of

LIMITS: Final = IsolationLimits(
    wall=timedelta(minutes=10),
    cpu=timedelta(minutes=10),
    # Programs in Go reserve far more than they use, and one thread for each processor and more.
    memory_bytes=8 * 1024 * MEBIBYTE,
    processes=256,
    open_files=1_024,
    result_bytes=64 * MEBIBYTE,
)
"""What one run may use."""

_CACHE, _DOCUMENT = "cache", "bom.json"
_ENVIRONMENT: Final = {"XDG_CACHE_HOME": "tmp/cache"}
_ARGUMENTS: Final = (
    *("sbom", f"in/{_DOCUMENT}", "--scanners", "vuln", "--pkg-types", "os,library"),
    *("--cache-dir", f"in/{_CACHE}", "--cache-backend", "memory", "--offline-scan", "--quiet"),
    *("--skip-db-update", "--skip-java-db-update", "--skip-version-check", "--disable-telemetry"),
    *("--format", "template", "--template", trivy.TEMPLATE),
)
_LAST = 300
"""Characters of what a program said that an error repeats."""


class SecondEngine(Protocol):
    """What judges the same advisories once more."""

    async def judge(self, asking: Asking, /) -> Answers:
        """Return what it says. Raises ``EngineError`` where it says nothing that can be believed."""


@dataclass(frozen=True, slots=True)
class TrivyEngine:
    """The program at ``program``, whose bytes have the digest ``sha256``."""

    program: Path
    sha256: str
    isolation: IsolationSettings
    folder: Path
    """For what is made for a run; what is there belongs to this process."""
    limits: IsolationLimits = LIMITS
    _versions: list[str] = field(default_factory=list, init=False, compare=False)
    """What it called itself: the same bytes say the same."""

    async def judge(self, asking: Asking) -> Answers:
        """Return what Trivy says; where it has nothing to judge, that it is there is seen all the same."""
        said: dict[Question, Mapping[str, bool]] = {}
        asked = await asyncio.to_thread(trivy.sheets, asking)
        if not asked or not self._versions:
            self._versions[:] = [version_of((await self._run(("--version",), {})).stdout)]
        for sheet in asked:
            said |= await self._judge(sheet)
        return Answers(
            engine=trivy.NAME,
            version=f"{self._versions[0]} (sha256:{self.sha256})",
            in_force=asking.in_force,
            said=said,
            asked=sum(map(len, asking.known.values())),
        )

    async def _judge(self, sheet: trivy.Sheet) -> dict[Question, dict[str, bool]]:
        with tempfile.TemporaryDirectory(prefix="engine-", dir=self.folder) as folder:
            inputs = await asyncio.to_thread(_laid_out, sheet, Path(folder))
            outcome = await self._run(_ARGUMENTS, inputs)
        return await asyncio.to_thread(trivy.read, sheet, outcome.stdout)

    async def _run(self, arguments: Sequence[str], inputs: Mapping[str, Path]) -> ProgramOutcome:
        wanted = Program(self.program.resolve(), self.sha256, arguments, inputs, environment=_ENVIRONMENT)
        try:
            outcome = await run_program(wanted, self.limits, settings=self.isolation)
        except (IsolationFailed, OSError) as error:
            raise EngineError(f"{trivy.NAME}: {self.program}: {error}") from None
        if outcome.status:
            said = outcome.stderr[-_LAST:] or "nothing"
            raise EngineError(
                f"{trivy.NAME}: {self.program} ended with status {outcome.status} and said: {said}"
            )
        return outcome


def _laid_out(sheet: trivy.Sheet, folder: Path) -> dict[str, Path]:
    database = folder / _CACHE / "db"
    database.mkdir(parents=True)
    (database / "trivy.db").write_bytes(trivy.database_of(sheet))
    (database / "metadata.json").write_bytes(trivy.METADATA)
    (folder / _DOCUMENT).write_bytes(trivy.document_of(sheet))
    return {_CACHE: folder / _CACHE, _DOCUMENT: folder / _DOCUMENT}
