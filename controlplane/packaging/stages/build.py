"""BUILD: the deployable package, unsigned, with its manifest; and what its provenance will say.

The isolated process extracts the artefact again, holds it against what INTAKE listed, and repacks it so that
the same input gives the same bytes: nothing of the pipeline, of the time or of this machine is in a package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetwright.manifest import MAX_BYTES, Manifest, ManifestError, dump, parse

from controlplane.clock import Clock, to_micros
from controlplane.packaging.archives.jobs import FILES
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.jobs import MANIFESTS, PACKAGES, REQUEST
from controlplane.packaging.building.naming import archive_name, deb_name
from controlplane.packaging.building.platforms import parse_platform
from controlplane.packaging.building.provenance import Provenance, check_source, predicate
from controlplane.packaging.building.work import ARCHIVE, DEB
from controlplane.packaging.given import Given
from controlplane.packaging.isolation import records as isolation
from controlplane.packaging.rules import Stage
from controlplane.packaging.sbom.tools import own_version
from controlplane.packaging.stages.intake import given_of
from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.stages.workshop import (
    Ran,
    Workshop,
    as_json,
    bad_result,
    named_texts,
    read,
)

_NAMED: Final = {ARCHIVE: archive_name, DEB: deb_name}


@dataclass(frozen=True, slots=True)
class _Built:
    """A package in the store."""

    format: str
    sha256: str
    size: int
    file_name: str
    manifest: Manifest
    manifest_sha256: str
    details: dict[str, str]

    def told(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "size": self.size, "file_name": self.file_name}


def build(workshop: Workshop, clock: Clock, builder_id: str) -> StageRun:
    """Return the stage. ``builder_id`` is the URI by which provenance names who built."""

    async def run(job: Job) -> StageDone:
        given, started = given_of(job.pipeline), to_micros(clock.now())
        _check_source(job)
        ran = await workshop.run(job, await _building(workshop, job, given))
        built = await _taken(workshop, job, ran)
        ended = max(started, to_micros(clock.now()))
        said = _said(job, given, built, ran, builder_id, (started, ended))
        return _done(job, built, _predicate(said), ran)

    return run


def _said(
    job: Job, given: Given, built: list[_Built], ran: Ran, builder_id: str, times: tuple[int, int]
) -> Provenance:
    pipeline = job.pipeline
    return Provenance(
        artefact_name=pipeline.file_name,
        artefact_sha256=pipeline.artefact,
        unsigned={one.format: one.sha256 for one in built},
        build_id=pipeline.build_id,
        builder_id=builder_id,
        builder_version=own_version(),
        invocation_id=f"pipelines/{pipeline.pipeline_id}/runs/{pipeline.fence}",
        started=times[0],
        ended=times[1],
        source_date_epoch=given.epoch,
        source_repository=pipeline.source_repository,
        source_commit=pipeline.source_commit,
        manifest_overrides=given.manifest,
        formats=[one.format for one in built],
        tools=named_texts(ran.value, "tools"),
        isolation=ran.isolation,
    )


def _check_source(job: Job) -> None:
    try:
        check_source(job.pipeline.source_repository, job.pipeline.source_commit)
    except BuildFailed as error:
        raise StageFailed(error.code, str(error)) from None


def _predicate(said: Provenance) -> dict[str, Any]:
    try:
        return predicate(said)
    except BuildFailed as error:
        raise StageFailed(error.code, str(error)) from None


async def _building(workshop: Workshop, job: Job, given: Given) -> isolation.Job:
    before = job.outcomes[Stage.INTAKE]
    artefact = await workshop.fetch(job.pipeline.artefact, job.folder / "artefact", "artefact")
    files = await workshop.fetch(before["files"], job.folder / FILES, "list of files")
    asked = {
        "facts": before["facts"],
        "name": given.text("name"),
        "version": given.text("version"),
        "epoch": given.epoch,
        "overrides": _with_platform(job, given),
        "deb": given.deb,
    }
    request = job.folder / REQUEST
    request.write_bytes(as_json(asked))
    arguments: dict[str, isolation.JsonValue] = {
        "declared_name": job.pipeline.file_name,
        "expected_sha256": job.pipeline.artefact,
    }
    inputs = {"artefact": artefact, FILES: files, REQUEST: request}
    return isolation.Job("build_packages", arguments, inputs, job.folder / "out")


def _with_platform(job: Job, given: Given) -> dict[str, Any]:
    """Return the given fields, with the platform that was asked for where no list of them was given."""
    overrides = dict(given.manifest)
    if job.pipeline.target_platform and "platforms" not in overrides:
        try:
            wanted = parse_platform(job.pipeline.target_platform)
        except BuildFailed as error:
            raise StageFailed(error.code, str(error)) from None
        overrides["platforms"] = [{"os": wanted.os, "architecture": wanted.architecture}]
    return overrides


async def _taken(workshop: Workshop, job: Job, ran: Ran) -> list[_Built]:
    told = ran.value.get("packages")
    if not isinstance(told, list) or not 1 <= len(told) <= len(PACKAGES):
        raise bad_result("build_packages", "not one or two packages")
    kinds = [one.get("format") if isinstance(one, dict) else None for one in told]
    if len(set(kinds)) != len(kinds) or not set(kinds) <= set(PACKAGES):
        raise bad_result("build_packages", "a package in a format that is not known")
    built = [await _one(workshop, job.folder / "out", one) for one in told]
    facts = job.outcomes[Stage.INTAKE]["facts"]
    for one in built:
        made_of = (one.manifest.name, one.manifest.version, one.manifest.source_sha256)
        if made_of != (facts["name"], facts["version"], job.pipeline.artefact):
            raise bad_result("build_packages", "a manifest of something else than the artefact")
    return built


async def _one(workshop: Workshop, folder: Path, told: dict[str, Any]) -> _Built:
    kind = told["format"]
    content = await read(folder / MANIFESTS[kind], MAX_BYTES)
    try:
        manifest = parse(content)
        name = _NAMED[kind](manifest)
    except ManifestError as error:
        raise bad_result("build_packages", f"manifest: {error}") from None
    except BuildFailed as error:
        raise StageFailed(error.code, str(error)) from None
    package = await workshop.keep(folder / PACKAGES[kind])
    listed = await workshop.keep(folder / MANIFESTS[kind])
    details = named_texts(told, "details")
    return _Built(kind, package.sha256, package.size, name, manifest, listed.sha256, details)


def _done(job: Job, built: list[_Built], provenance: dict[str, Any], ran: Ran) -> StageDone:
    for one in built:
        job.say("info", f"{one.file_name}: {one.size} bytes, {len(one.manifest.files)} files, {one.sha256}")
        for name, value in one.details.items():
            job.say("info", f"{one.format}: {name.replace('_', ' ')}: {value}")
    package, *more = built
    outcome = {
        "format": package.format,
        "package": package.told(),
        "deb": more[0].told() if more else None,
        "manifest": _short(package.manifest),
        "manifest_sha256": package.manifest_sha256,
        "provenance": provenance,
        "details": {one.format: one.details for one in built},
    }
    return StageDone(
        outcome,
        tools={"fleetwright": own_version(), **named_texts(ran.value, "tools")},
        inputs={"artefact": job.pipeline.artefact, "files": job.outcomes[Stage.INTAKE]["files"]},
        outputs={f"unsigned {one.format}": one.sha256 for one in built},
        isolation=ran.isolation,
    )


def _short(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest without its list of files, which may have megabytes; the store has the whole."""
    document: dict[str, Any] = json.loads(dump(manifest))
    del document["files"]
    return document
