"""Judging a package by this host's trusted root, and by nothing that the server says."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

import structlog
from fleetwright.verify.evidence import Parts, fetch, judge
from fleetwright.verify.reports import Outcome, Report
from fleetwright.verify.tuf_client import Release, TufClient

from agent_sim.host import ServerFiles
from agent_sim.protocol.trusted_root import LARGEST_ROOT
from agent_sim.released.fetching import SessionFetcher
from agent_sim.released.patience import PATIENCE, Patience
from agent_sim.released.reasons import ANOTHER_PACKAGE, NO_TRUSTED_ROOT, InstallError, NotAllowedError

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

RELEASE_CHECK: Final = frozenset({"release"})
"""The check of the package's own bytes."""


@dataclass(frozen=True, slots=True)
class Repository:
    """What one agent judges packages by."""

    state: Path
    """Folder of the metadata's client: what this agent has seen, so that nobody shows it less again."""
    trusted_root: bytes
    files: ServerFiles
    now: Callable[[], datetime]
    executor: Executor
    """Where the client runs: it waits for the event loop, so it may not run on it."""
    patience: Patience = PATIENCE
    durable: bool = True
    """Whether what was seen outlives a power cut; a simulated agent need not."""

    async def find(self, path: str, sha256: str) -> Release:
        """Return what is released under ``path``, which has to be the bytes of digest ``sha256``.

        Raises ``VerificationError`` and ``InstallError``.
        """
        release = await self._with_client(lambda client: client.find(path))
        if release.sha256 != sha256:
            raise InstallError(
                ANOTHER_PACKAGE,
                f"{path}: the task means SHA-256 {sha256}, and {release.sha256 or 'none'} is released: "
                "do not trust the task",
            )
        return release

    async def judge(self, path: str, package: Path | None) -> Report:
        """Return what the evidence says of the package ``path``, whose bytes lie in the file ``package``.

        Without the file all but the check ``release`` can hold. Raises ``VerificationError`` where the
        evidence cannot be had.
        """
        return await self._with_client(lambda client: self._judged(client, path, package))

    def _judged(self, client: TufClient, path: str, package: Path | None) -> Report:
        with tempfile.TemporaryDirectory(prefix="evidence-", dir=self.state.parent) as scratch:
            parts = fetch(client, path, package or Path(scratch), Path(scratch))
        if package is None:
            parts = Parts(None, parts.attestations, parts.keys)
        return judge(client, path, parts, self.now())

    async def _with_client(self, work: Callable[[TufClient], Result]) -> Result:
        """Run ``work`` in the thread; where the caller is cancelled, it is ended there first."""
        fetcher = SessionFetcher(self.files, self.patience)

        def run() -> Result:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            client = TufClient(self.state, self.trusted_root, fetcher, self.now, durable=self.durable)
            result = work(client)
            if client.repaired:
                _log.warning("broken metadata was removed and fetched again", files=list(client.repaired))
            return result

        future = asyncio.get_running_loop().run_in_executor(self.executor, run)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The folder is the client's until it has ended: the next one would find it in use.
            fetcher.stop()
            await asyncio.wait((future,))
            future.exception()
            raise


def passed(report: Report) -> list[str]:
    """Return the names of the checks that hold, in their order."""
    return [check.name for check in report.checks if check.outcome is Outcome.OK]


def wrong_bytes(report: Report) -> bool:
    """Whether the package's own bytes are what does not hold, as after a damaged download."""
    return any(check.name in RELEASE_CHECK for check in report.failures)


def read_trusted_root(path: Path, uid: int, remedy: str, name: str = "policy install.trusted_root") -> bytes:
    """Read the root that packages are judged by, for an agent that runs as ``uid``.

    ``remedy`` says what to do where it is missing, ``name`` what the file is. Raises ``NotAllowedError``
    where it is missing, or where someone besides root and that user could have written it: whoever can change
    this file says what is installed.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(LARGEST_ROOT + 1)
    except OSError as error:
        raise NotAllowedError(
            NO_TRUSTED_ROOT,
            f"{name}: {path}: {error.strerror}: {remedy}",
        ) from None
    if not stat.S_ISREG(status.st_mode) or not 0 < len(content) <= LARGEST_ROOT:
        raise NotAllowedError(NO_TRUSTED_ROOT, f"{name}: {path}: no file of metadata: {remedy}")
    if status.st_uid not in (0, uid) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotAllowedError(
            NO_TRUSTED_ROOT,
            f"{name}: {path}: others can change it: run `chown {uid} {path}` and "
            f"`chmod go-w {path}` after you have compared it",
        )
    return content
