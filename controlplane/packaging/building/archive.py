"""Our archive: a gzipped tar with ``manifest.json`` before all else and the files in ``files/``, sorted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetwright.manifest import Manifest, ManifestError, dump
from fleetwright.manifest.packed import ENTRY

from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.outputs import writing
from controlplane.packaging.building.payload import PayloadFile
from controlplane.packaging.building.tarballs import of_gzip

FILES = "files"
"""The folder of the archive that package paths count from."""


def build_archive(payload: Sequence[PayloadFile], manifest: Manifest, output: Path, epoch: int) -> None:
    """Write the archive of ``payload``, whose manifest this is, with ``epoch`` as the time of every entry.

    Holds no more than a piece of one file in memory. Raises ``BuildFailed``; then ``output`` is not there.
    """
    ordered = sorted(payload, key=lambda one: one.file.path)
    if tuple(one.file for one in ordered) != tuple(manifest.files):
        raise BuildFailed("MANIFEST", "files", "are not those that the manifest is about")
    try:
        text = dump(manifest)
    except ManifestError as error:
        raise BuildFailed("MANIFEST", error.field, error.problem) from error
    with writing(output) as stream, of_gzip(stream, epoch) as tarball:
        tarball.text(ENTRY, text)
        for one in ordered:
            tarball.payload(f"{FILES}/{one.file.path}", one)
