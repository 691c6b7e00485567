"""How a package came to be, as the predicate of SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance).

Only the predicate: the statement around it, whose subject is the digest of the final, signed bytes, and its
signature are the business of ``controlplane/trust``. No SLSA level is claimed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controlplane.packaging.building.errors import BuildFailed

PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
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
    unsigned_sha256: str
    """Of the package before it was signed; equal to the subject's where signing adds nothing to the bytes."""
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
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _external(build),
            "internalParameters": {
                "sourceDateEpoch": build.source_date_epoch,
                "tools": dict(sorted(build.tools.items())),
                "isolation": dict(sorted(build.isolation.items())),
            },
            "resolvedDependencies": _dependencies(build),
        },
        "runDetails": {
            "builder": {"id": build.builder_id, "version": {"fleetwright": build.builder_version}},
            "metadata": {
                "invocationId": build.invocation_id,
                "startedOn": timestamp(build.started),
                "finishedOn": timestamp(build.ended),
            },
        },
    }


def timestamp(instant: int) -> str:
    """Return an instant in microseconds as in-toto writes it: RFC 3339, UTC, with "Z"."""
    try:
        return (
            (_EPOCH + timedelta(microseconds=instant))
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z")
        )
    except OverflowError as error:
        raise BuildFailed(
            "PROVENANCE", "time", f"{instant} microseconds is no time that can be written"
        ) from error


def _check(build: Provenance) -> None:
    for name in ("artefact_sha256", "unsigned_sha256"):
        if not _SHA256.fullmatch(getattr(build, name)):
            raise BuildFailed("PROVENANCE", name, "is no SHA-256 in lower-case hexadecimal")
    for name in ("build_id", "builder_id", "builder_version", "invocation_id"):
        if not getattr(build, name):
            raise BuildFailed("PROVENANCE", name, "is empty, and provenance without it proves nothing")
    if build.ended < build.started:
        raise BuildFailed("PROVENANCE", "ended", "is before the start")
    if build.source_commit and not _COMMIT.fullmatch(build.source_commit):
        raise BuildFailed(
            "PROVENANCE", "source_commit", "is no full commit id of 40 or 64 hexadecimal digits"
        )
    if build.source_commit and not build.source_repository:
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


def _dependencies(build: Provenance) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": "artefact",
            "uri": _by_digest(build.artefact_sha256),
            "digest": {"sha256": build.artefact_sha256},
        },
        {
            "name": "unsigned package",
            "uri": _by_digest(build.unsigned_sha256),
            "digest": {"sha256": build.unsigned_sha256},
        },
    ]
    if build.source_commit:
        uri = build.source_repository
        found.append(
            {
                "name": "source, as declared",
                "uri": uri if uri.startswith("git+") else f"git+{uri}",
                "digest": {"gitCommit": build.source_commit},
            }
        )
    return found


def _by_digest(sha256: str) -> str:
    # Bytes are stored by their digest, and this is the name that RFC 6920 gives to such a thing.
    return f"nih:sha-256;{sha256}"
