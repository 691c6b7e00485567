"""Packages on hosts that do not exist: verified for real, and not installed.

A simulated agent follows the repository's metadata with a client and a state of its own, downloads the
package and its evidence, and judges them as the reference agent does. Then it forgets the bytes, and its
result says that no file was installed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final

from fleetwright.v1 import agent_service_pb2, work_pb2
from fleetwright.verify.errors import VerificationError

from agent_sim.host import AttemptReporter, ServerFiles
from agent_sim.released.downloading import Download
from agent_sim.released.patience import PATIENCE, Patience
from agent_sim.released.reasons import SIMULATED, InstallError, of_report
from agent_sim.released.results import INSTALLED, Findings, refusal, result
from agent_sim.released.verifying import Repository, passed

AT_ONCE: Final = 8
"""Packages that the agents of one process verify at the same time; the others wait."""


class SimulatedInstalls:
    """What the agents of one process share: the root that they trust, a folder, and a few threads."""

    def __init__(
        self, trusted_root: bytes, folder: Path | None = None, patience: Patience = PATIENCE
    ) -> None:
        """``folder`` keeps the state of each agent's client; without it that is forgotten at the end."""
        self._temporary = tempfile.TemporaryDirectory(prefix="fleetwright-sim-") if folder is None else None
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self.trusted_root = trusted_root
        self.patience = patience
        self.threads = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="verifying")
        self.turns = asyncio.Semaphore(AT_ONCE)

    def of(self, agent_id: str, files: ServerFiles, now: Callable[[], datetime]) -> SimulatedInstaller:
        """Return what verifies the packages of one agent."""
        return SimulatedInstaller(self, agent_id, files, now)

    def close(self) -> None:
        """Let the threads go, and remove a folder that nobody asked to keep."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        if self._temporary is not None:
            self._temporary.cleanup()


class SimulatedInstaller:
    """The kind ``install`` of one simulated agent."""

    def __init__(
        self, shared: SimulatedInstalls, agent_id: str, files: ServerFiles, now: Callable[[], datetime]
    ) -> None:
        self._shared, self._files, self._now = shared, files, now
        self._folder = shared.folder / agent_id
        self._one_at_a_time = asyncio.Lock()
        self._versions: dict[str, str] = {}

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Verify the package of an assignment. A refusal is a result with its reason and a stable word."""
        found = Findings()
        try:
            async with self._one_at_a_time, self._shared.turns:
                return await self._verify(assignment.spec.install, reporter, found)
        except (InstallError, VerificationError, OSError) as error:
            return refusal(error, found)

    async def _verify(
        self, spec: work_pb2.InstallSpec, reporter: AttemptReporter, found: Findings
    ) -> work_pb2.AttemptResult:
        shared = self._shared
        repository = Repository(
            self._folder / "tuf",
            shared.trusted_root,
            self._files,
            self._now,
            shared.threads,
            shared.patience,
            durable=False,
        )
        reporter.progress(0, "simulated: downloading", work_pb2.DEPLOYMENT_STATUS_DOWNLOADING)
        sha256 = spec.package.removeprefix("packages/")
        release = await repository.find(spec.target_path, sha256)
        package = self._folder / sha256
        try:
            download = Download(self._files, shared.patience)
            await download.fetch(release, package, lambda _: None, found.add_downloaded)
            reporter.progress(100, "simulated: verifying", work_pb2.DEPLOYMENT_STATUS_VERIFYING)
            report = await repository.judge(spec.target_path, package)
        finally:
            await asyncio.to_thread(package.unlink, missing_ok=True)
        found.verified = passed(report)
        if (refused := of_report(report)) is not None:
            raise refused
        found.previous_version = self._versions.get(spec.package_name, "")
        self._versions[spec.package_name] = spec.version
        words = "simulated: the package was verified, and no file was installed"
        return result(INSTALLED, found, code=SIMULATED, reason=words)
