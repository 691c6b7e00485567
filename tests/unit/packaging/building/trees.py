"""Artefacts and trees for tests, made on the spot."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.packaging.building.work import BuildRequest, build
from controlplane.packaging.records import ArtefactFacts, ArtefactType, FileEntry

EPOCH = 1_700_000_000
OPTIONS = {"maintainer": "Ops <ops@example.org>", "description": "A tool\nthat does one thing."}
ARCHIVE_FACTS = ArtefactFacts(ArtefactType.ARCHIVE, "tool", "1.2.3", "x86_64", "linux")
FILES: Mapping[str, tuple[bytes, int]] = {
    "tool-1.2.3/bin/tool": (b"#!/bin/sh\necho tool 1.2.3\n", 0o755),
    "tool-1.2.3/etc/tool.conf": (b"level = 1\n", 0o640),
    "tool-1.2.3/lib/data.bin": (bytes(range(256)) * 40, 0o644),
    "tool-1.2.3/lib/naïve.txt": ("é".encode(), 0o644),
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_tree(folder: Path, files: Mapping[str, tuple[bytes, int]]) -> list[FileEntry]:
    """Write files as intake leaves them, and return their entries."""
    entries = []
    for path, (content, mode) in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        entries.append(FileEntry(path, len(content), sha256(content), mode))
    return entries


def request(
    folder: Path,
    files: Mapping[str, tuple[bytes, int]] = FILES,
    *,
    facts: ArtefactFacts = ARCHIVE_FACTS,
    artefact: bytes = b"the artefact's own bytes",
    links: Mapping[str, str] | None = None,
    **others: Any,
) -> BuildRequest:
    """Write an artefact and its tree below ``folder``, and return what asks for its packages."""
    for name in ("tree", "output"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "artefact").write_bytes(artefact)
    entries = write_tree(folder / "tree", files)
    entries += [FileEntry(path, 0, sha256(b""), 0o777, target) for path, target in (links or {}).items()]
    parts: dict[str, Any] = {"epoch": EPOCH, **others}
    return BuildRequest(
        artefact=str(folder / "artefact"),
        sha256=sha256(artefact),
        tree=str(folder / "tree"),
        facts=facts,
        files=entries,
        output=str(folder / "output"),
        **parts,
    )


def built(wanted: BuildRequest, kind: str) -> dict[str, Any]:
    """Build, and return the package in the format ``kind``."""
    packages = build(wanted.to_json())["packages"]
    return next(one for one in packages if one["format"] == kind)
