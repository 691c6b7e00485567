"""From step to step: an installation that a kill between any two of them, or within one, leaves neither half
done nor forgotten.

Before a step begins, the ledger says so, on disk. Each step can be begun again. So whoever starts after a
kill reads how far it was and goes on: before the switch it is given up, with nothing changed; after it,
what is there is looked at like after any installation, and kept or taken back.

Everything here blocks, and runs in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from fleetwright.manifest import Manifest
from fleetwright.v1 import work_pb2

from agent_sim import failpoints
from agent_sim.agent.installing.ledger import Ledger, LedgerError
from agent_sim.agent.installing.records import (
    DPKG,
    PREFIX,
    Ended,
    Installed,
    Operation,
    Status,
    Step,
    Version,
)
from agent_sim.agent.installing.ways import NONE, Way, dropped_by
from agent_sim.released.reasons import (
    DISK_FAILED,
    INTERRUPTED,
    ROLLBACK_FAILED,
    TYPE_NOT_ALLOWED,
    InstallError,
    NotAllowedError,
)

_INSTALLED: Final = work_pb2.DEPLOYMENT_STATUS_INSTALLED
_FAILED: Final = work_pb2.DEPLOYMENT_STATUS_FAILED
_ROLLED_BACK: Final = work_pb2.DEPLOYMENT_STATUS_ROLLED_BACK

_log = structlog.get_logger(__name__)

StepWork = Callable[[Operation, Manifest], Operation]


class Installer:
    """Installs one package at a time; ``ways`` has those that this host's owner allows."""

    def __init__(self, ledger: Ledger, ways: Mapping[str, Way]) -> None:
        self._ledger, self._ways = ledger, ways
        self._steps: Mapping[Step, StepWork] = {
            Step.STAGING: self._give_up,
            Step.SWITCHING: self._switch,
            Step.DETECTING: self._detect,
            Step.RESTORING: self._restore,
            Step.COMMITTING: self._commit,
        }

    def current(self, sha256: str) -> Version | None:
        """Return the version that was installed from this package, if it is the current one."""
        found = (entry.current for entry in self._ledger.installed().values())
        return next((version for version in found if version.sha256 == sha256), None)

    def is_there(self, version: Version) -> bool:
        """Whether a version that is said to be installed can be found. Raises ``LedgerError``."""
        try:
            self._way(version.way).detect(version, self._ledger.manifest(version.sha256))
        except InstallError as error:
            _log.warning("an installed package was not found", package=version.name, reason=error.reason)
            return False
        return True

    def install(
        self,
        attempt_id: str,
        package: Path,
        sha256: str,
        manifest: Manifest,
        *,
        verified: tuple[str, ...] = (),
        downloaded: int = 0,
    ) -> Operation:
        """Install a package that was verified, and return the operation with how it ended.

        ``verified`` and ``downloaded`` are kept with it, for its result.

        Raises ``InstallError`` where it cannot be begun, ``LedgerError`` and ``OSError`` where the ledger
        cannot be written: then what is on disk says how far it was, and ``recover`` goes on.
        """
        # What a full disk has stopped half-way is gone on with first: the ledger has room for one.
        self.recover()
        named = Version.of(manifest, sha256)
        entry = self._ledger.installed().get(named.key)
        before = entry.current if entry is not None else None
        way = self._way(named.way)
        operation = way.plan(attempt_id, manifest, sha256, before)
        operation = replace(operation, verified=verified, downloaded=downloaded)
        self._ledger.keep_manifest(sha256, manifest)
        self._ledger.write(operation)
        failpoints.hit("agent.install_staging")
        try:
            way.stage(operation, manifest, package)
        except (InstallError, OSError) as error:
            return self._drive(operation.at(Step.STAGING, failure=_ended(error, _FAILED)))
        failpoints.hit("agent.install_staged")
        return self._drive(self._ledger.write(operation.at(Step.SWITCHING)))

    def recover(self) -> Operation | None:
        """Finish, or take back, what an earlier process left; return the last operation, which has ended.

        Raises ``LedgerError`` and ``OSError``.
        """
        operation = self._ledger.operation()
        if operation is not None and operation.ended is None:
            _log.warning(
                "an installation was cut short", package=operation.target.name, step=operation.step.value
            )
            operation = self._drive(operation)
        self._ledger.tidy()
        return operation

    def _drive(self, operation: Operation) -> Operation:
        manifest = self._ledger.manifest(operation.target.sha256)
        while operation.ended is None:
            operation = self._ledger.write(self._steps[operation.step](operation, manifest))
        failpoints.hit("agent.install_ended")
        _log.info(
            "installation ended",
            package=operation.target.name,
            version=operation.target.version,
            status=work_pb2.DeploymentStatus.Name(operation.ended.status),
            reason=operation.ended.reason,
        )
        return operation

    def _give_up(self, operation: Operation, manifest: Manifest) -> Operation:
        try:
            self._way(operation.target.way).discard(operation)
        except OSError as error:
            _log.warning("what was unpacked was not removed", reason=_words(error))
        reason = "the agent ended while it unpacked the package; nothing was changed"
        ended = operation.failure or Ended(_FAILED, INTERRUPTED, reason)
        return operation.at(Step.ENDED, ended=ended)

    def _switch(self, operation: Operation, manifest: Manifest) -> Operation:
        failpoints.hit("agent.install_switching")
        try:
            self._way(operation.target.way).switch(operation, manifest)
        except (InstallError, OSError) as error:
            return operation.at(Step.RESTORING, failure=_ended(error, _FAILED))
        failpoints.hit("agent.install_switched")
        return operation.at(Step.DETECTING)

    def _detect(self, operation: Operation, manifest: Manifest) -> Operation:
        failpoints.hit("agent.install_detecting")
        try:
            self._way(operation.target.way).detect(operation.target, manifest)
        except (InstallError, OSError) as error:
            return operation.at(Step.RESTORING, failure=_ended(error, _FAILED))
        return operation.at(Step.COMMITTING)

    def _commit(self, operation: Operation, manifest: Manifest) -> Operation:
        failpoints.hit("agent.install_committing")
        target = operation.target
        entry = self._ledger.installed().get(target.key)
        if entry is None or entry.current != target:
            kept, dropped = dropped_by(entry, target, manifest.rollback.keep_versions)
            try:
                self._way(target.way).forget(operation, manifest, dropped)
            except OSError as error:
                _log.warning("what former versions left was not removed", reason=_words(error))
            self._ledger.set_installed(target.key, Installed(target, kept))
        failpoints.hit("agent.install_committed")
        return operation.at(Step.ENDED, ended=Ended(_INSTALLED))

    def _restore(self, operation: Operation, manifest: Manifest) -> Operation:
        failpoints.hit("agent.install_restoring")
        failure = operation.failure or Ended(_FAILED, INTERRUPTED, "the installation was cut short")
        way = self._way(operation.target.way)
        try:
            way.restore(operation, manifest)
            ended = self._restored(operation, manifest, failure, way)
        except (InstallError, LedgerError, OSError) as error:
            why = _words(error) if isinstance(error, OSError) else str(error)
            words = f"{failure.reason}; and what was before could not be brought back: {why}"
            ended = Ended(_FAILED, ROLLBACK_FAILED, words)
        failpoints.hit("agent.install_restored")
        return operation.at(Step.ENDED, ended=ended)

    def _restored(self, operation: Operation, manifest: Manifest, failure: Ended, way: Way) -> Ended:
        """Return how it ended, with what was before brought back as far as it can be."""
        before, code = operation.before, failure.code
        if before is None or manifest.rollback.strategy == NONE:
            left = operation.previous_version and manifest.rollback.strategy == NONE
            if before is not None:
                self._ledger.set_installed(before.key, None)
            words = "its manifest lets nothing come back" if left else "nothing was there before"
            return Ended(_FAILED, code, f"{failure.reason}; it was removed, and {words}")
        way.detect(before, self._ledger.manifest(before.sha256))
        return Ended(_ROLLED_BACK, code, f"{failure.reason}; version {before.version} is back")

    def _way(self, name: str) -> Way:
        way = self._ways.get(name)
        if way is not None:
            return way
        entry = {PREFIX: "install.prefix: not set", DPKG: "install.dpkg: not true"}.get(name, name)
        raise NotAllowedError(TYPE_NOT_ALLOWED, f"policy {entry}, so packages of this type are not installed")


def _ended(error: InstallError | OSError, status: Status) -> Ended:
    if isinstance(error, InstallError):
        return Ended(status, error.code, error.reason)
    return Ended(status, DISK_FAILED, _words(error))


def _words(error: OSError) -> str:
    what = error.strerror or type(error).__name__
    return f"{error.filename}: {what}" if error.filename else what
