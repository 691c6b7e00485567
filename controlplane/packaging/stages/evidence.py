"""What the stages SCAN and POLICY know of a package from the stages before them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.packaging.blobs import BlobDamaged, BlobMissing, Blobs
from controlplane.packaging.forms import FormError, components_from_json, facts_of
from controlplane.packaging.judging import Judging, JudgingFailed, Subject
from controlplane.packaging.judging.subjects import purl_of
from controlplane.packaging.policy.facts import ProvenanceFacts
from controlplane.packaging.records import Component
from controlplane.packaging.rules import Stage
from controlplane.packaging.stages.stage import Job, StageFailed
from controlplane.packaging.store.decisions import Attested

MOST_NAME = 256
"""Characters of a component's name, and of its version."""
MOST_PURL = 1_024


def found_by(job: Job, stage: Stage, name: str) -> Any:
    """Return what a stage before found. Raises ``StageFailed``."""
    found = job.outcomes.get(stage, {})
    if name not in found:
        raise StageFailed(
            "OUTCOME_MISSING", f"stage {stage.name} left no {name!r}; retry the pipeline from there"
        )
    return found[name]


def attestations_before(job: Job) -> dict[str, str]:
    """Return the attestations of the stages before the scan: by kind, the digest in the store of bytes."""
    return {
        str(kind): str(digest)
        for stage in (Stage.SIGN, Stage.SBOM)
        for kind, digest in job.outcomes.get(stage, {}).get("attestations", {}).items()
    }


async def evidence_of(job: Job, blobs: Blobs, judging: Judging) -> list[Attested]:
    """Return those attestations, each checked: signed by our key for it, about this package.

    Raises ``StageFailed``.
    """
    package = package_of(job)["sha256"]
    found = []
    for kind, digest in sorted(attestations_before(job).items()):
        envelope = await fetched(blobs, digest, job.folder / f"{kind}.json")
        try:
            found.append(judging.evidence(kind, envelope, package))
        except JudgingFailed as failed:
            raise StageFailed(failed.code, failed.message) from None
    return found


def package_of(job: Job) -> Mapping[str, Any]:
    """Return the final package: its sha256, size and file_name. Raises ``StageFailed``."""
    package: Mapping[str, Any] = found_by(job, Stage.SIGN, "package")
    return package


def subject_of(job: Job, components: list[Component], evidence: list[Attested]) -> Subject:
    """Return what is judged. Raises ``StageFailed``."""
    package, sbom = package_of(job), job.outcomes.get(Stage.SBOM, {})
    try:
        facts = facts_of(found_by(job, Stage.INTAKE, "facts"))
    except FormError as error:
        raise StageFailed("OUTCOME_BROKEN", str(error)) from None
    return Subject(
        sha256=package["sha256"],
        file_name=package["file_name"],
        purl=purl_of(facts, components, package["sha256"]),
        facts=facts,
        provenance=_provenance(job),
        files=int(sbom.get("file_count", 0)),
        claimed=int(sbom.get("claimed_file_count", 0)),
        attestations={one.kind: one.sha256 for one in evidence},
        vex=job.pipeline.vex,
    )


def _provenance(job: Job) -> ProvenanceFacts:
    built = job.outcomes.get(Stage.BUILD, {}).get("provenance") or {}
    builder = built.get("runDetails", {}).get("builder", {}).get("id", "")
    signatures = job.outcomes.get(Stage.SIGN, {}).get("signatures") or []
    own = [one["state"] for one in signatures if one.get("kind") != "dsse"]
    return ProvenanceFacts(
        builder=builder,
        build_id=job.pipeline.build_id,
        source_repository=job.pipeline.source_repository,
        source_commit=job.pipeline.source_commit,
        # Of the format itself: every package has a DSSE envelope beside it.
        signature=own[0] if own else "NOT_APPLICABLE",
    )


async def components_of(job: Job, blobs: Blobs) -> list[Component]:
    """Return the components that stage SBOM found. Raises ``StageFailed``."""
    data = await fetched(blobs, found_by(job, Stage.SBOM, "components"), job.folder / "components.json")
    try:
        components = components_from_json(data)
    except FormError as error:
        raise StageFailed("OUTCOME_BROKEN", str(error)) from None
    return _fitting(components)


def _fitting(components: list[Component]) -> list[Component]:
    by_purl: dict[str, Component] = {}
    for one in components:
        if len(one.purl) > MOST_PURL or max(len(one.name), len(one.version)) > MOST_NAME:
            raise StageFailed(
                "COMPONENT_TOO_LONG",
                f"component {one.purl[:200]!r}: name and version may have {MOST_NAME} characters, the "
                f"package URL {MOST_PURL}; it cannot be scanned, and leaving it out would hide it",
            )
        if by_purl.setdefault(one.purl, one) is not one:
            raise StageFailed(
                "COMPONENT_TWICE", f"component {one.purl[:200]!r} is listed twice; run stage SBOM again"
            )
    return components


async def fetched(blobs: Blobs, digest: str, path: Path) -> bytes:
    """Return stored bytes, verified. Raises ``StageFailed``."""
    await asyncio.to_thread(path.unlink, missing_ok=True)
    try:
        await blobs.fetch(digest, path)
    except BlobMissing:
        raise StageFailed(
            "BLOB_MISSING", f"{digest} is not stored any more; build the package anew"
        ) from None
    except BlobDamaged as error:
        raise StageFailed("BLOB_DAMAGED", f"{error}; build the package anew") from None
    return await asyncio.to_thread(path.read_bytes)


async def kept(blobs: Blobs, data: bytes, path: Path) -> str:
    """Store bytes under their digest, by way of a file; returns the digest."""
    digest = hashlib.sha256(data).hexdigest()
    await asyncio.to_thread(path.write_bytes, data)
    await blobs.put_file(path, digest)
    return digest
