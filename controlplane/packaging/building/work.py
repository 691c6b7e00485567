"""The door of the folder: an artefact and its extracted files in, packages out, as paths and JSON.

``build`` is made for a process of its own, without network and without keys, that reads what others made.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from fleetwright.manifest import dump

from controlplane.packaging.building import tarballs
from controlplane.packaging.building.archive import build_archive
from controlplane.packaging.building.control import DebOptions
from controlplane.packaging.building.deb import build_deb
from controlplane.packaging.building.derivation import Artefact, derive, identified, payload
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.outputs import digest
from controlplane.packaging.building.repacking import repack_deb
from controlplane.packaging.records import ArtefactFacts, ArtefactType, FileEntry

ARCHIVE: Final = "archive"
DEB: Final = "deb"


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build from what."""

    artefact: str
    """Path of the bytes that came in."""
    sha256: str
    """Of them, as at intake."""
    tree: str
    """Path of the folder that they were extracted to; for a jar and a binary nothing is read from it."""
    facts: ArtefactFacts
    files: Sequence[FileEntry]
    output: str
    """Path of a folder."""
    epoch: int
    """SOURCE_DATE_EPOCH, seconds."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the manifest that the user gives."""
    deb: Mapping[str, Any] | None = None
    """``DebOptions``: a .deb is wanted too. What comes as a .deb becomes one without them."""

    def to_json(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        document = asdict(self)
        document["facts"]["type"] = self.facts.type.value
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BuildRequest:
        """Return what ``to_json`` wrote; the process that asks is trusted to have written it."""
        facts = {**document["facts"], "type": ArtefactType(document["facts"]["type"])}
        files = [FileEntry(**one) for one in document["files"]]
        return cls(**{**document, "facts": ArtefactFacts(**facts), "files": files})


@dataclass(frozen=True, slots=True)
class BuiltPackage:
    """A package that lies in the output folder, unsigned."""

    format: str
    """"archive" or "deb"."""
    path: str
    sha256: str
    size: int
    manifest: str
    """The manifest in it, as JSON."""
    details: Mapping[str, str]


def build(document: Mapping[str, Any]) -> dict[str, Any]:
    """Build what a ``BuildRequest`` in JSON asks for; return ``{"packages": [...], "tools": {...}}``.

    Raises ``BuildFailed``. Packages that were ready by then stay in the folder; they are never half written.
    """
    request = BuildRequest.from_json(document)
    if not 0 <= request.epoch <= tarballs.MAX_EPOCH:
        raise BuildFailed("EPOCH", "SOURCE_DATE_EPOCH", f"is {request.epoch}, not 0 to {tarballs.MAX_EPOCH}")
    artefact = _artefact(request)
    built = (
        _repacked(request, artefact) if request.facts.type is ArtefactType.DEB else _packed(request, artefact)
    )
    return {"packages": [asdict(one) for one in built], "tools": tools()}


def tools() -> dict[str, str]:
    """Return by name and version what the bytes of a package depend on, for the evidence."""
    return {"python": platform.python_version(), **tarballs.tools()}


def _artefact(request: BuildRequest) -> Artefact:
    sha256, size = digest(Path(request.artefact))
    if sha256 != request.sha256:
        raise BuildFailed(
            "FILE_CHANGED", "artefact", "is not what it was at intake; start the pipeline again"
        )
    return Artefact(Path(request.artefact), sha256, size)


def _packed(request: BuildRequest, artefact: Artefact) -> list[BuiltPackage]:
    facts = identified(request.facts, request.overrides)
    files = payload(facts, artefact, Path(request.tree), request.files)
    manifest = derive(facts, artefact.sha256, [one.file for one in files], request.overrides)
    path = Path(request.output) / "package.tar.gz"
    build_archive(files, manifest, path, request.epoch)
    built = [_built(ARCHIVE, path, dump(manifest), {})]
    if request.deb is not None:
        path = Path(request.output) / "package.deb"
        own = build_deb(files, manifest, DebOptions.from_json(request.deb), path, request.epoch)
        built.append(_built(DEB, path, dump(own), {"maintainer_scripts": "none"}))
    return built


def _repacked(request: BuildRequest, artefact: Artefact) -> list[BuiltPackage]:
    files = payload(request.facts, artefact, Path(request.tree), request.files)
    manifest = derive(request.facts, artefact.sha256, [one.file for one in files], request.overrides)
    path = Path(request.output) / "package.deb"
    details = repack_deb(artefact.path, manifest, path, request.epoch)
    return [_built(DEB, path, dump(manifest), details)]


def _built(kind: str, path: Path, manifest: bytes, details: Mapping[str, str]) -> BuiltPackage:
    sha256, size = digest(path)
    return BuiltPackage(kind, str(path), sha256, size, manifest.decode(), dict(details))
