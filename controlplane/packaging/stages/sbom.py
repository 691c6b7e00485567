"""SBOM: what is in the final package, as CycloneDX and SPDX from one list, attested.

The list is of the bytes that agents get: they are extracted again, in isolation. A typed package in which
nothing is found is a failed stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetwright.verify.documents import parse_object
from fleetwright.verify.keys import Purpose
from fleetwright.verify.statements import LARGEST_STATEMENT, Subject

from controlplane.packaging.isolation import records as isolation
from controlplane.packaging.rules import Stage
from controlplane.packaging.sbom import jobs
from controlplane.packaging.stages.asking import Asked, Scanners
from controlplane.packaging.stages.attesting import KeyFor, attest, key_of
from controlplane.packaging.stages.intake import given_of
from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.stages.workshop import (
    Kept,
    Ran,
    Workshop,
    named_texts,
    number,
    read,
    texts,
    together,
)
from controlplane.trust import statements

_DOCUMENTS: Final = {"components": jobs.COMPONENTS, "cyclonedx": jobs.CYCLONEDX, "spdx": jobs.SPDX}
"""By the outcome's name, the files that the job leaves."""
_FOUND: Final = "found"
_WRITTEN: Final = "documents"
"""Folders of the job's, for what each of the two leaves."""


def sbom(workshop: Workshop, key_for: KeyFor, scanners: Scanners | None = None) -> StageRun:
    """Return the stage. ``scanners`` are those of this machine where None are given."""
    tools = Scanners() if scanners is None else scanners

    async def run(job: Job) -> StageDone:
        key_of(key_for, Purpose.SBOM)
        package = job.outcomes[Stage.SIGN]["package"]
        keep_tree = bool(tools.present())
        catalogued = await workshop.run(job, await _cataloguing(workshop, job, package, keep_tree))
        asked = await tools.ask(workshop, job, job.folder / _FOUND / jobs.TREE)
        written = await workshop.run(job, _writing(job, asked))
        kept = {name: await workshop.keep(job.folder / _WRITTEN / file) for name, file in _DOCUMENTS.items()}
        attestation = await _attested(workshop, job, key_for, package, kept["cyclonedx"].size)
        _say(job, written)
        isolated = together(written.isolation, catalogued.isolation)
        return _done(package, kept, attestation, written, isolated)

    return run


async def _cataloguing(
    workshop: Workshop, job: Job, package: Mapping[str, Any], keep_tree: bool
) -> isolation.Job:
    path = await workshop.fetch(package["sha256"], job.folder / jobs.PACKAGE, "package")
    arguments: dict[str, isolation.JsonValue] = {
        "kind": job.outcomes[Stage.BUILD]["format"],
        "expected_sha256": package["sha256"],
        "facts": job.outcomes[Stage.INTAKE]["facts"],
        "keep_tree": keep_tree,
    }
    return isolation.Job("catalogue", arguments, {jobs.PACKAGE: path}, job.folder / _FOUND)


def _writing(job: Job, asked: Sequence[Asked]) -> isolation.Job:
    inputs = {jobs.INVENTORY: job.folder / _FOUND / jobs.INVENTORY}
    inputs |= {one.document.name: one.document for one in asked if one.document is not None}
    arguments: dict[str, isolation.JsonValue] = {
        "epoch": given_of(job.pipeline).epoch,
        "tools": [dict(one.told()) for one in asked],
    }
    return isolation.Job("write_documents", arguments, inputs, job.folder / _WRITTEN)


async def _attested(
    workshop: Workshop, job: Job, key_for: KeyFor, package: Mapping[str, Any], size: int
) -> str:
    """Attest the CycloneDX document of ``size`` bytes; returns the digest of the envelope."""
    if size > LARGEST_STATEMENT:
        raise StageFailed(
            "NOT_ATTESTABLE",
            f"the CycloneDX document has {size} bytes, and verifiers read {LARGEST_STATEMENT} at most; "
            "split the package",
        )
    document = await read(job.folder / _WRITTEN / jobs.CYCLONEDX, LARGEST_STATEMENT)
    subject = Subject(package["file_name"], package["sha256"])

    def write() -> bytes:
        return statements.cyclonedx([subject], parse_object(document, "SBOM", LARGEST_STATEMENT).value)

    return (await attest(workshop, job, key_for, Purpose.SBOM, write)).sha256


def _say(job: Job, ran: Ran) -> None:
    value = ran.value
    job.say(
        "info",
        f"{number(value, 'component_count')} components; they claim {number(value, 'claimed_file_count')} of "
        f"{number(value, 'file_count')} files",
    )
    if unclaimed := texts(value, "unclaimed"):
        job.say("info", f"claimed by none, for example: {', '.join(unclaimed)}")
    if needed := number(value, "open_requirement_count"):
        named = ", ".join(texts(value, "open_requirements"))
        job.say(
            "warning",
            f"{needed} requirements leave their version open: what meets them is no part of the package, and "
            f"not scanned: {named}",
        )
    for problem in texts(value, "problems"):
        job.say("warning", problem)


def _done(
    package: Mapping[str, Any],
    kept: Mapping[str, Kept],
    attestation: str,
    ran: Ran,
    isolated: Mapping[str, str],
) -> StageDone:
    digests = {name: one.sha256 for name, one in kept.items()}
    counts = {
        name: number(ran.value, name)
        for name in ("component_count", "file_count", "claimed_file_count", "open_requirement_count")
    }
    return StageDone(
        {**digests, **counts, "attestations": {"sbom": attestation}},
        tools=named_texts(ran.value, "tools"),
        inputs={"package": package["sha256"]},
        outputs={**digests, "sbom": attestation},
        isolation=isolated,
    )
