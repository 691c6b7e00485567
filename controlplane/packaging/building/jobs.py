"""What is called in an isolated process to build a package; see ``isolation/functions.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from controlplane.packaging.archives.intake import inspect
from controlplane.packaging.archives.jobs import FILES
from controlplane.packaging.archives.listing import facts_from_json, files_from_json
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.work import ARCHIVE, DEB, BuildRequest, build
from controlplane.packaging.records import ArtefactFacts, FileEntry

REQUEST: Final = "request.json"
"""In ``in/``: what is asked for."""
PACKAGES: Final = {ARCHIVE: "package.tar.gz", DEB: "package.deb"}
"""In ``out/``, by format: the packages."""
MANIFESTS: Final = {ARCHIVE: "archive.manifest.json", DEB: "deb.manifest.json"}
"""In ``out/``, by format: their manifests."""


def build_packages(declared_name: str, expected_sha256: str) -> dict[str, Any]:
    """Build what ``in/request.json`` asks for from ``in/artefact``; packages and manifests go to ``out/``.

    The artefact is extracted again and must hold just the files that ``in/files.json`` lists. Raises
    ``BadArtefact`` and ``BuildFailed``.
    """
    asked = json.loads((Path("in") / REQUEST).read_bytes())
    recorded = files_from_json((Path("in") / FILES).read_bytes())
    facts = facts_from_json(asked["facts"])
    tree = Path("tmp/tree")
    tree.mkdir()
    name, version = asked["name"], asked["version"]
    artefact = Path("in/artefact")
    found = inspect(
        artefact, declared_name, tree, name=name, version=version, expected_sha256=expected_sha256
    )
    _check_same(found.facts, found.files, facts, recorded)
    request = BuildRequest(
        artefact=str(artefact),
        sha256=expected_sha256,
        tree=str(tree),
        facts=facts,
        files=recorded,
        output="out",
        epoch=asked["epoch"],
        overrides=asked["overrides"],
        deb=asked["deb"],
    )
    built = build(request.to_json())
    return {"packages": [_told(one) for one in built["packages"]], "tools": built["tools"]}


def _check_same(
    facts: ArtefactFacts, files: Any, recorded_facts: ArtefactFacts, recorded: list[FileEntry]
) -> None:
    if facts != recorded_facts or list(files) != recorded:
        raise BuildFailed(
            "FILE_CHANGED", "artefact", "is not what it was at intake; start the pipeline again"
        )


def _told(package: dict[str, Any]) -> dict[str, Any]:
    # A manifest lists every file: too long for an answer, which has a limit.
    kind = package["format"]
    (Path("out") / MANIFESTS[kind]).write_text(package["manifest"], encoding="utf-8")
    return {"format": kind, "details": dict(package["details"])}
