"""The two ways in which a package gets into its place, under one port, so that the steps are the same."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog
from fleetwright.manifest import DpkgInstall, Manifest

from agent_sim.agent.installing.detecting import Detector
from agent_sim.agent.installing.dpkg import Dpkg
from agent_sim.agent.installing.ledger import Ledger, LedgerError
from agent_sim.agent.installing.prefix import Prefix, commands_of
from agent_sim.agent.installing.records import DPKG, Installed, Operation, Step, Version
from agent_sim.released.reasons import ROLLBACK_FAILED, InstallError

NONE: Final = "none"
"""The strategy under which nothing comes back."""

_log = structlog.get_logger(__name__)


class Way(Protocol):
    """Everything but ``plan`` may be called again for the same operation, and is harmless then."""

    def plan(self, attempt_id: str, manifest: Manifest, sha256: str, before: Version | None) -> Operation:
        """Return the operation, with nothing done. Raises ``InstallError`` where it cannot be begun."""

    def stage(self, operation: Operation, manifest: Manifest, package: Path) -> None:
        """Prepare beside what is installed. Raises ``InstallError`` and ``OSError``."""

    def discard(self, operation: Operation) -> None:
        """Remove what was staged."""

    def switch(self, operation: Operation, manifest: Manifest) -> None:
        """Put the new version in its place. Raises ``InstallError`` and ``OSError``."""

    def detect(self, version: Version, manifest: Manifest) -> None:
        """Raise ``InstallError`` unless a version is there."""

    def restore(self, operation: Operation, manifest: Manifest) -> None:
        """Bring back what was before. Raises ``InstallError`` and ``OSError``."""

    def forget(self, operation: Operation, manifest: Manifest, dropped: Collection[Version]) -> None:
        """Remove what former versions have left, of a good operation."""


@dataclass(frozen=True, slots=True)
class PrefixWay:
    """Into a folder of the host's."""

    prefix: Prefix
    ledger: Ledger
    detector: Detector

    def plan(self, attempt_id: str, manifest: Manifest, sha256: str, before: Version | None) -> Operation:
        """See ``Way``."""
        self.detector.check(manifest)
        self.prefix.check(os.geteuid())
        target, links = self.prefix.plan(manifest, sha256)
        previous = before.version if before else ""
        return Operation(attempt_id, target, Step.STAGING, before, previous, links)

    def stage(self, operation: Operation, manifest: Manifest, package: Path) -> None:
        """See ``Way``."""
        self.prefix.stage(package, manifest, operation.target)

    def discard(self, operation: Operation) -> None:
        """See ``Way``."""
        self.prefix.discard(operation.target)

    def switch(self, operation: Operation, manifest: Manifest) -> None:
        """See ``Way``."""
        self.prefix.switch(operation.target, manifest)

    def detect(self, version: Version, manifest: Manifest) -> None:
        """See ``Way``."""
        self.detector.look(manifest.detect, self.prefix.current(version))

    def restore(self, operation: Operation, manifest: Manifest) -> None:
        """See ``Way``."""
        self.prefix.restore(operation)
        before = operation.before
        if manifest.rollback.strategy == NONE and before is not None:
            self.prefix.leave(before.name)
            self.prefix.uninstall(before, self.ledger.manifest(before.sha256))

    def forget(self, operation: Operation, manifest: Manifest, dropped: Collection[Version]) -> None:
        """See ``Way``."""
        keeping = commands_of(manifest)
        if operation.before is not None:
            with suppress(LedgerError):
                former = commands_of(self.ledger.manifest(operation.before.sha256))
                self.prefix.remove_commands(operation.target.name, former - keeping)
        for version in dropped:
            try:
                self.prefix.uninstall(version, self.ledger.manifest(version.sha256), keeping)
            except (LedgerError, OSError) as error:
                _log.warning("a former version was not removed", version=version.folder, reason=str(error))


@dataclass(frozen=True, slots=True)
class DpkgWay:
    """By dpkg."""

    dpkg: Dpkg
    ledger: Ledger
    detector: Detector

    def plan(self, attempt_id: str, manifest: Manifest, sha256: str, before: Version | None) -> Operation:
        """See ``Way``."""
        self.dpkg.check()
        self.detector.check(manifest)
        there = self.dpkg.version(_package(manifest))
        # What somebody else has installed since is not ours to bring back.
        before = before if before is not None and before.version == there else None
        target = Version(manifest.name, manifest.version, sha256, DPKG)
        return Operation(attempt_id, target, Step.STAGING, before, there)

    def stage(self, operation: Operation, manifest: Manifest, package: Path) -> None:
        """Keep the file: it is what a later version goes back to."""
        self.ledger.keep_package(operation.target.sha256, package)

    def discard(self, operation: Operation) -> None:
        """Leave it to ``Ledger.tidy``."""

    def switch(self, operation: Operation, manifest: Manifest) -> None:
        """See ``Way``."""
        self.dpkg.install(self.ledger.kept(operation.target.sha256))

    def detect(self, version: Version, manifest: Manifest) -> None:
        """See ``Way``."""
        self.detector.look(manifest.detect, self.dpkg.root)

    def restore(self, operation: Operation, manifest: Manifest) -> None:
        """See ``Way``."""
        before = operation.before
        if not operation.previous_version or manifest.rollback.strategy == NONE:
            self.dpkg.remove(_package(manifest))
        elif before is not None and self.ledger.kept(before.sha256).exists():
            self.dpkg.install(self.ledger.kept(before.sha256))
        else:
            raise InstallError(
                ROLLBACK_FAILED,
                f"version {operation.previous_version} was not installed by this agent, so its package is "
                "not here to be installed again: look at the host",
            )

    def forget(self, operation: Operation, manifest: Manifest, dropped: Collection[Version]) -> None:
        """Leave it to dpkg, which has replaced the former version, and to ``Ledger.tidy``."""


def dropped_by(
    entry: Installed | None, target: Version, keep: int
) -> tuple[tuple[Version, ...], tuple[Version, ...]]:
    """Return which former versions are kept, the newest first, and which are not, once ``target`` is good."""
    former = (entry.current, *entry.earlier) if entry is not None else ()
    others = [version for version in former if version.sha256 != target.sha256]
    same = [
        version for version in former if version.sha256 == target.sha256 and version.folder != target.folder
    ]
    return tuple(others[:keep]), (*others[keep:], *same)


def _package(manifest: Manifest) -> str:
    return next((step.package for step in manifest.install if isinstance(step, DpkgInstall)), manifest.name)
