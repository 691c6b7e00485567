"""What the ledger keeps: the versions that are installed, and the operation that is under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeAlias

from fleetwright.manifest import Manifest
from fleetwright.v1 import work_pb2

Status: TypeAlias = work_pb2.DeploymentStatus.ValueType

PREFIX: Final = "prefix"
DPKG: Final = "dpkg"


class Step(StrEnum):
    """How far an operation is. What each says is true from before it begins until the next one is written."""

    STAGING = "staging"
    """Files are unpacked beside; what is installed is untouched."""
    SWITCHING = "switching"
    """The new version is put in the place of the former one; may be half done, can be done again."""
    DETECTING = "detecting"
    """All is in its place; whether it works is being found out."""
    RESTORING = "restoring"
    """It is not good: what was before is being brought back; can be done again."""
    COMMITTING = "committing"
    """It is good, and the record says so; what is left of former versions is removed."""
    ENDED = "ended"
    """Nothing is left to do; ``Operation.ended`` says how it ended."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a package on this host."""

    name: str
    version: str
    sha256: str
    """Of the package file; its manifest is kept under it."""
    way: str
    """``PREFIX`` or ``DPKG``."""
    folder: str = ""
    """Below the prefix, relative; empty for what dpkg installed."""

    @property
    def key(self) -> str:
        """What tells packages apart: one name may come both ways."""
        return f"{self.way}:{self.name}"

    @classmethod
    def of(cls, manifest: Manifest, sha256: str, folder: str = "") -> Version:
        """Name the version that a manifest is about."""
        way = DPKG if manifest.type == "deb" else PREFIX
        return cls(manifest.name, manifest.version, sha256, way, folder)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an operation ended."""

    status: Status
    """INSTALLED, FAILED or ROLLED_BACK."""
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """The installation of one version, as far as it is."""

    attempt_id: str
    target: Version
    step: Step
    before: Version | None = None
    """What this agent had installed before."""
    previous_version: str = ""
    """What was there before, whoever installed it; empty for nothing."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Commands of the new version, and where each led before; empty where there was none."""
    verified: tuple[str, ...] = ()
    downloaded: int = 0
    failure: Ended | None = None
    """Why it is taken back."""
    ended: Ended | None = None

    def at(self, step: Step, **changes: Any) -> Operation:
        """Return the operation one step on."""
        return replace(self, step=step, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Operation:
        """Read what ``to_json`` gave. Raises ``TypeError``, ``KeyError`` and ``ValueError``."""
        before, failure, ended = (document[name] for name in ("before", "failure", "ended"))
        parts = {
            "target": Version(**document["target"]),
            "step": Step(document["step"]),
            "before": Version(**before) if before else None,
            "verified": tuple(document["verified"]),
            "failure": Ended(**failure) if failure else None,
            "ended": Ended(**ended) if ended else None,
        }
        return cls(**{**document, **parts})


@dataclass(frozen=True, slots=True)
class Installed:
    """The versions of one package: the one in its place, and those that are kept to go back to."""

    current: Version
    earlier: tuple[Version, ...] = ()
    """The newest first."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Installed:
        """Read what ``asdict`` gave. Raises ``TypeError`` and ``KeyError``."""
        return cls(Version(**document["current"]), tuple(Version(**one) for one in document["earlier"]))
