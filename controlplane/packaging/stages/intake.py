"""INTAKE: what an artefact is and says of itself, and which files are in it.

The bytes are read to their end by our own readers in an isolated process, which refuses what is broken,
ambiguous, hostile or not what its name says. What is extracted ends with that process: later stages extract
it again from bytes of the same digest, and hold them against the list of files from here.
"""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path
from typing import Any, Final

from fleetwright.manifest import ManifestError, Platform

from controlplane.packaging.archives.jobs import FILES
from controlplane.packaging.archives.listing import (
    LIST_BYTES,
    facts_from_json,
    facts_to_json,
    files_from_json,
)
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.platforms import fits, parse_platform, platform_text, platforms_of
from controlplane.packaging.given import Given, read_given
from controlplane.packaging.isolation import records as isolation
from controlplane.packaging.records import ArtefactFacts, FileEntry
from controlplane.packaging.sbom.tools import own_version
from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.stages.workshop import Kept, Ran, Workshop, bad_result, number, read, texts
from controlplane.packaging.store.pipelines import PipelineRecord

MAX_NAME: Final = 256
"""Characters of a name or a version that is kept."""
MAX_PLATFORM: Final = 64


def intake(workshop: Workshop) -> StageRun:
    """Return the stage."""

    async def run(job: Job) -> StageDone:
        given = given_of(job.pipeline)
        artefact = await workshop.fetch(job.pipeline.artefact, job.folder / "artefact", "artefact")
        ran = await workshop.run(job, _unpacking(job, given, artefact))
        facts = _facts(ran)
        listing = await _listing(ran, job.folder / "out" / FILES)
        target = _target(job, facts)
        files = await workshop.keep(job.folder / "out" / FILES)
        _say(job, facts, listing, ran)
        return _done(job, facts, files, len(listing), target, ran)

    return run


def given_of(pipeline: PipelineRecord) -> Given:
    """Return what was given with a pipeline. Raises ``StageFailed``."""
    try:
        return read_given(pipeline.manifest)
    except ManifestError as error:
        raise StageFailed("MANIFEST", f"manifest.{error}") from None


def _unpacking(job: Job, given: Given, artefact: Path) -> isolation.Job:
    arguments: dict[str, isolation.JsonValue] = {
        "declared_name": job.pipeline.file_name,
        "expected_sha256": job.pipeline.artefact,
        "name": given.text("name"),
        "version": given.text("version"),
    }
    return isolation.Job("unpack", arguments, {"artefact": artefact}, job.folder / "out")


def _facts(ran: Ran) -> ArtefactFacts:
    try:
        facts = facts_from_json(ran.value.get("facts"))
    except ValueError as error:
        raise bad_result("unpack", str(error)) from None
    for name in ("name", "version"):
        if len(getattr(facts, name)) > MAX_NAME:
            raise StageFailed(
                "BAD_METADATA", f"{name}: has more than {MAX_NAME} characters; give it a shorter one"
            )
    return facts


async def _listing(ran: Ran, path: Path) -> list[FileEntry]:
    content = await read(path, LIST_BYTES)
    try:
        listing = await asyncio.to_thread(files_from_json, content)
    except ValueError as error:
        raise bad_result("unpack", str(error)) from None
    if len(listing) != number(ran.value, "file_count"):
        raise bad_result("unpack", "it counted other files than it listed")
    return listing


def _target(job: Job, facts: ArtefactFacts) -> str:
    """Return the platform that the package is for: the caller's, else the artefact's own where it is one."""
    own = _own_platform(job, facts)
    if not job.pipeline.target_platform:
        return platform_text(own) if own is not None else ""
    try:
        wanted = parse_platform(job.pipeline.target_platform)
    except BuildFailed as error:
        raise StageFailed(error.code, str(error)) from None
    if own is not None and not fits(wanted, own):
        raise StageFailed(
            "WRONG_PLATFORM",
            f"target_platform: {platform_text(wanted)} was asked for, and the artefact is for "
            f"{platform_text(own)}; leave it out, or upload the artefact of that platform",
        )
    return platform_text(wanted)[:MAX_PLATFORM]


def _own_platform(job: Job, facts: ArtefactFacts) -> Platform | None:
    try:
        [own] = platforms_of(facts)
    except BuildFailed as error:
        job.say("warning", f"its platform cannot be told from its metadata: {error}")
        return None
    return own if len(platform_text(own)) <= MAX_PLATFORM else None


def _say(job: Job, facts: ArtefactFacts, listing: list[FileEntry], ran: Ran) -> None:
    runs_on = f" for {facts.architecture}" if facts.architecture else ""
    job.say("info", f"{facts.type.value} {facts.name} {facts.version or '(no version)'}{runs_on}")
    size = sum(entry.size for entry in listing)
    job.say("info", f"{len(listing)} files of {size} bytes; SHA-256 {job.pipeline.artefact}")
    count, shown = number(ran.value, "nested_count"), texts(ran.value, "nested")
    if count:
        more = f" and {count - len(shown)} more" if count > len(shown) else ""
        job.say("info", f"{count} archives within it, left closed: {', '.join(shown)}{more}")


def _done(job: Job, facts: ArtefactFacts, files: Kept, file_count: int, target: str, ran: Ran) -> StageDone:
    outcome: dict[str, Any] = {
        "facts": facts_to_json(facts),
        "files": files.sha256,
        "file_count": file_count,
    }
    return StageDone(
        outcome,
        tools={"fleetwright": own_version(), "python": platform.python_version()},
        inputs={"artefact": job.pipeline.artefact},
        outputs={"files": files.sha256},
        isolation=ran.isolation,
        facts={
            "artefact_type": facts.type.value,
            "package_name": facts.name,
            "package_version": facts.version,
            "target_platform": target,
        },
    )
