"""How a package came to be: what a build says for SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance).

What is said is decided here; how it is written is decided in ``trust.statements``, for everybody. The result
is the predicate: its subject is the digest of the final, signed bytes, which a build does not know yet. No
SLSA level is claimed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fleetwright.verify import predicates
from fleetwright.verify.predicates import Material

from controlplane.packaging.building.errors import BuildFailed
from controlplane.trust.statements import provenance_predicate

BUILD_TYPE: Final = "https://example.org/fleetwright/build-types/package/v1"
"""The name of what ``work.build`` does; its external parameters are those of ``Provenance``."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is known of a build. Digests are SHA-256, instants microseconds since 1970, UTC."""

    artefact_name: str
    """As it was uploaded; only people read it."""
    artefact_sha256: str
    unsigned: Mapping[str, str]
    """By format, the digest of each package before it was signed; equal to a subject's where signing adds
    nothing to the bytes."""
    build_id: str
    builder_id: str
    """A URI: who consumers must trust, so it changes where the isolation or the operator does."""
    builder_version: str
    invocation_id: str
    """Of this one run: another one at a retry."""
    started: int
    ended: int
    source_date_epoch: int
    source_repository: str = ""
    """A URI, as given with the pipeline; nobody has verified it."""
    source_commit: str = ""
    manifest_overrides: Mapping[str, Any] = field(default_factory=dict)
    formats: Sequence[str] = ()
    tools: Mapping[str, str] = field(default_factory=dict)
    """Name to version, of what the bytes depend on."""
    isolation: Mapping[str, Any] = field(default_factory=dict)
    """Which limits held in the process that built it."""


def predicate(build: Provenance) -> dict[str, Any]:
    """Return the predicate as plain JSON; raises ``BuildFailed`` for facts that cannot be."""
    _check(build)
    made = predicates.Provenance(
        build_type=BUILD_TYPE,
        builder=build.builder_id,
        invocation=build.invocation_id,
        started=_instant(build.started),
        finished=_instant(build.ended),
        materials=tuple(_materials(build)),
    )
    internal = {
        "sourceDateEpoch": build.source_date_epoch,
        "tools": dict(sorted(build.tools.items())),
        "isolation": dict(sorted(build.isolation.items())),
    }
    version = {"fleetwright": build.builder_version}
    return provenance_predicate(made, external=_external(build), internal=internal, builder_version=version)


def _instant(micros: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError as error:
        raise BuildFailed(
            "PROVENANCE", "time", f"{micros} microseconds is no time that can be written"
        ) from error


def _check(build: Provenance) -> None:
    digests = {
        "artefact_sha256": build.artefact_sha256,
        **{f"unsigned.{k}": v for k, v in build.unsigned.items()},
    }
    for name, sha256 in digests.items():
        if not _SHA256.fullmatch(sha256):
            raise BuildFailed("PROVENANCE", name, "is no SHA-256 in lower-case hexadecimal")
    for name in ("unsigned", "build_id", "builder_id", "builder_version", "invocation_id"):
        if not getattr(build, name):
            raise BuildFailed("PROVENANCE", name, "is empty, and provenance without it proves nothing")
    if build.ended < build.started:
        raise BuildFailed("PROVENANCE", "ended", "is before the start")
    check_source(build.source_repository, build.source_commit)


def check_source(repository: str, commit: str) -> None:
    """Raise ``BuildFailed`` for a commit that is none, or of no repository."""
    if commit and not _COMMIT.fullmatch(commit):
        raise BuildFailed(
            "PROVENANCE", "source_commit", "is no full commit id of 40 or 64 hexadecimal digits"
        )
    if commit and not repository:
        raise BuildFailed("PROVENANCE", "source_repository", "is missing, though a commit is given")


def _external(build: Provenance) -> dict[str, Any]:
    found: dict[str, Any] = {
        "artefact": {"name": build.artefact_name, "digest": {"sha256": build.artefact_sha256}},
        "buildId": build.build_id,
        "manifest": dict(build.manifest_overrides),
        "formats": sorted(build.formats),
    }
    if build.source_repository:
        found["source"] = {"repository": build.source_repository, "commit": build.source_commit}
    return found


def _materials(build: Provenance) -> list[Material]:
    unsigned = [
        Material(f"unsigned {kind}", _by_digest(sha256), sha256)
        for kind, sha256 in sorted(build.unsigned.items())
    ]
    found = [Material("artefact", _by_digest(build.artefact_sha256), build.artefact_sha256), *unsigned]
    if build.source_commit:
        uri = build.source_repository
        uri = uri if uri.startswith("git+") else f"git+{uri}"
        found.append(Material("source, as declared", uri, "", build.source_commit))
    return found


def _by_digest(sha256: str) -> str:
    # Bytes are stored by their digest, and this is the name that RFC 6920 gives to such a thing.
    return f"nih:sha-256;{sha256}"
