"""The kind ``install``, from an assignment to its result."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from fleetwright.manifest import ANY, Manifest, ManifestError, read_manifest
from fleetwright.v1 import agent_service_pb2, work_pb2
from fleetwright.verify.errors import VerificationError
from fleetwright.verify.tuf_client import Release

from agent_sim import failpoints
from agent_sim.agent.installing.detecting import Detector
from agent_sim.agent.installing.dpkg import Dpkg
from agent_sim.agent.installing.installer import Installer
from agent_sim.agent.installing.ledger import Ledger, LedgerError
from agent_sim.agent.installing.prefix import Prefix
from agent_sim.agent.installing.records import DPKG, PREFIX, Ended, Operation
from agent_sim.agent.installing.ways import DpkgWay, PrefixWay, Way
from agent_sim.agent.process import uninterrupted
from agent_sim.agent.rules import InstallRules
from agent_sim.host import AttemptReporter, ServerFiles
from agent_sim.protocol.trusted_root import TRUSTED_ROOT
from agent_sim.released import reasons
from agent_sim.released.downloading import Download
from agent_sim.released.patience import PATIENCE, Patience
from agent_sim.released.reasons import InstallError, NotAllowedError
from agent_sim.released.results import FAILED, INSTALLED, Findings, refusal, result
from agent_sim.released.verifying import RELEASE_CHECK, Repository, passed, read_trusted_root, wrong_bytes

_SPARE_BYTES: Final = 16 << 20

DOWNLOADING: Final = work_pb2.DEPLOYMENT_STATUS_DOWNLOADING
VERIFYING: Final = work_pb2.DEPLOYMENT_STATUS_VERIFYING
INSTALLING: Final = work_pb2.DEPLOYMENT_STATUS_INSTALLING

_DEBIAN: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "i686": "i386",
    "i386": "i386",
    "ppc64le": "ppc64el",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
"""What the kernel calls a machine, and what a manifest does."""

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_OWN_ROOT_REMEDY: Final = "put the repository's root there, as `fleetwright trust init` made it"
_NO_ROOT_REMEDY: Final = (
    "this host was enrolled when its server had none: once `fleetwright trust init` has been run there, "
    "enrol it again with `fleetwright-agent enroll --force`, or name a file of your own in the policy, "
    "install.trusted_root"
)


class InstallTask:
    """Installs released packages on this host, one at a time."""

    def __init__(
        self,
        rules: InstallRules,
        state: Path,
        files: ServerFiles,
        now: Callable[[], datetime],
        *,
        patience: Patience = PATIENCE,
        dpkg_root: Path = Path("/"),
    ) -> None:
        """Prepare the folder ``packages`` in the agent's ``state``. Raises ``OSError``.

        ``dpkg_root`` is where the files lie of the system that dpkg is told about.
        """
        self._rules, self._files, self._now, self._patience = rules, files, now, patience
        self._delivered = state / TRUSTED_ROOT
        self._ledger = Ledger(state / "packages")
        dpkg = Dpkg(rules.dpkg, dpkg_root)
        detector = Detector(rules.commands_as, dpkg.version)
        ways: dict[str, Way] = {DPKG: DpkgWay(dpkg, self._ledger, detector)} if rules.dpkg else {}
        if rules.prefix is not None:
            ways[PREFIX] = PrefixWay(Prefix(rules.prefix), self._ledger, detector)
        self._installer = Installer(self._ledger, ways)
        # One thread: installations wait for each other anyway, and the metadata's folder has one user.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="installing")
        self._one_at_a_time = asyncio.Lock()

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def recover(self) -> tuple[str, work_pb2.AttemptResult] | None:
        """Finish, or take back, what an earlier process left half done.

        Returns the attempt of the last installation with its true result, for a journal that may know only
        that the process ended meanwhile. A ledger that cannot be read is logged; every installation then says
        so.
        """
        try:
            operation = await self._in_thread(self._installer.recover)
        except (LedgerError, InstallError, OSError) as error:
            _log.error("installations of an earlier run were not looked at", reason=str(error))
            return None
        if operation is None or operation.ended is None:
            return None
        return operation.attempt_id, _result_of(operation)

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Install what an assignment asks for; a refusal is a result with its reason and a stable word."""
        found = Findings()
        try:
            async with self._one_at_a_time:
                return await self._install(assignment, reporter, found)
        except LedgerError as error:
            return result(FAILED, found, code=reasons.LEDGER_UNUSABLE, reason=str(error))
        except (InstallError, VerificationError, OSError) as error:
            return refusal(error, found)

    async def _install(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter, found: Findings
    ) -> work_pb2.AttemptResult:
        spec = assignment.spec.install
        sha256, path = spec.package.removeprefix("packages/"), spec.target_path
        repository = await self._in_thread(lambda: self._repository(path))
        reporter.progress(0, "following the repository's metadata", DOWNLOADING)
        release = await repository.find(path, sha256)
        if (there := await self._already_there(repository, path, sha256, reporter)) is not None:
            return there
        package = self._ledger.partial(sha256)
        await self._fetch_and_judge(repository, release, package, reporter, found)
        failpoints.hit("agent.install_verified")
        reporter.progress(100, "installing", INSTALLING)
        operation = await _to_its_end(
            self._in_thread(lambda: self._put_in_place(assignment.attempt_id, package, sha256, found))
        )
        return _result_of(operation)

    def _repository(self, path: str) -> Repository:
        channel = path.partition("/")[0]
        if channel not in self._rules.channels:
            raise NotAllowedError(
                reasons.CHANNEL_NOT_ALLOWED, f"policy install.channels: {channel!r} is not listed"
            )
        root = self._trusted_root()
        return Repository(self._ledger.metadata, root, self._files, self._now, self._thread, self._patience)

    def _trusted_root(self) -> bytes:
        own = self._rules.trusted_root
        if own is not None:
            return read_trusted_root(own, os.geteuid(), _OWN_ROOT_REMEDY)
        return read_trusted_root(self._delivered, os.geteuid(), _NO_ROOT_REMEDY, "the root of this host")

    async def _already_there(
        self, repository: Repository, path: str, sha256: str, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult | None:
        """Return the result for a package that is there and good still; None where it must be installed."""
        version = await self._in_thread(lambda: self._installer.current(sha256))
        if version is None:
            return None
        reporter.progress(50, "installed already: verifying", VERIFYING)
        report = await repository.judge(path, None)
        found = Findings(passed(report), 0, version.version)
        if (refused := reasons.of_report(report, without=RELEASE_CHECK)) is not None:
            words = f"{refused.reason}; the version that is installed stays until it is removed or replaced"
            return result(FAILED, found, code=refused.code, reason=words)
        there = version
        if not await _to_its_end(self._in_thread(lambda: self._installer.is_there(there))):
            return None
        words = "it was installed already, and found again"
        return result(INSTALLED, found, code=reasons.ALREADY_INSTALLED, reason=words)

    async def _fetch_and_judge(
        self,
        repository: Repository,
        release: Release,
        package: Path,
        reporter: AttemptReporter,
        found: Findings,
    ) -> None:
        """Download a package, from where it was left, and verify it. Raises what refuses it."""
        for again in (False, True):
            begun_before = not again and await asyncio.to_thread(package.exists)
            await self._download(release, package, reporter, found)
            failpoints.hit("agent.install_downloaded")
            reporter.progress(100, "verifying", VERIFYING)
            report = await repository.judge(release.path, package)
            found.verified = passed(report)
            refused = reasons.of_report(report)
            if refused is None:
                return
            if wrong_bytes(report):
                _remove(package)
                if begun_before:
                    # What an earlier try has left may have been damaged by a power cut.
                    _log.warning("a download that was gone on with is not the released package: begun anew")
                    continue
            raise refused

    async def _download(
        self, release: Release, package: Path, reporter: AttemptReporter, found: Findings
    ) -> None:
        _check_size(release, self._rules.max_bytes, package)

        def said(length: int) -> None:
            failpoints.hit("agent.install_piece")
            percent = 100 * length // max(1, release.length)
            reporter.progress(percent, f"{length} of {release.length} bytes", DOWNLOADING)

        download = Download(self._files, self._patience)
        await download.fetch(release, package, said, found.add_downloaded)

    def _put_in_place(self, attempt_id: str, package: Path, sha256: str, found: Findings) -> Operation:
        """Install a package that was verified. Blocks."""
        try:
            manifest = read_manifest(package)
        except ManifestError as error:
            raise InstallError(
                reasons.PACKAGE_DAMAGED, f"the package was verified, but its manifest is not good: {error}"
            ) from None
        _check_platform(manifest)
        evidence = tuple(found.verified)
        operation = self._installer.install(
            attempt_id, package, sha256, manifest, verified=evidence, downloaded=found.downloaded
        )
        found.previous_version = operation.previous_version
        _remove(package)
        with suppress(OSError, LedgerError):
            self._ledger.tidy()
        return operation

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _to_its_end(work: Any) -> Any:
    """Finish ``work`` although the caller is cancelled meanwhile, and go on with what came of it.

    A package that is being put in its place is neither here nor there until it is; then the truth is worth
    more to who asked than an end a moment earlier.
    """
    task = asyncio.ensure_future(work)
    with suppress(asyncio.CancelledError):
        await uninterrupted(_awaited(task))
    return task.result()


async def _awaited(task: asyncio.Future[Any]) -> None:
    await asyncio.wait((task,))


def _check_size(release: Release, most: int, package: Path) -> None:
    if release.length > most:
        raise NotAllowedError(
            reasons.TOO_LARGE,
            f"policy limits.package_bytes: {most} is less than the package's {release.length}",
        )
    have = package.stat().st_size if package.exists() else 0
    disk = os.statvfs(package.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < max(0, release.length - have) + _SPARE_BYTES:
        raise InstallError(
            reasons.NO_SPACE, f"{package.parent}: {free} bytes free, and the package has {release.length}"
        )


def _check_platform(manifest: Manifest) -> None:
    machine = platform.machine()
    here = ("linux", _DEBIAN.get(machine, machine))
    for one in manifest.platforms:
        if one.os in (here[0], ANY) and one.architecture in (here[1], ANY):
            return
    named = ", ".join(f"{one.os}/{one.architecture}" for one in manifest.platforms)
    raise InstallError(reasons.PLATFORM, f"the package is for {named}, and this host is {'/'.join(here)}")


def _remove(package: Path) -> None:
    with suppress(OSError):
        package.unlink()


def _result_of(operation: Operation) -> work_pb2.AttemptResult:
    found = Findings(operation.verified, operation.downloaded, operation.previous_version)
    ended = operation.ended or Ended(FAILED, reasons.INTERRUPTED, "the installation did not end")
    return result(ended.status, found, code=ended.code, reason=ended.reason)
