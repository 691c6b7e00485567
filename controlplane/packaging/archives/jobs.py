"""What is called in an isolated process to read an artefact; see ``isolation/functions.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controlplane.packaging.archives.intake import inspect
from controlplane.packaging.archives.listing import facts_to_json, files_to_json
from controlplane.packaging.archives.outcome import NestedArchive

FILES = "files.json"
"""In ``out/``: the list of files."""
SHOWN = 20
"""Nested archives that are told one by one; how many there are is told in full."""


def unpack(declared_name: str, expected_sha256: str, name: str = "", version: str = "") -> dict[str, Any]:
    """Read ``in/artefact`` to its end and say what it is; its files are listed in ``out/files.json``.

    The extracted bytes end with the process: later stages extract them again, from bytes whose digest is
    known. Raises ``BadArtefact``.
    """
    tree = Path("tmp/tree")
    tree.mkdir()
    found = inspect(
        Path("in/artefact"), declared_name, tree, name=name, version=version, expected_sha256=expected_sha256
    )
    (Path("out") / FILES).write_bytes(files_to_json(found.files))
    return {
        "facts": facts_to_json(found.facts),
        "size": found.size,
        "sha512": found.sha512,
        "file_count": len(found.files),
        "nested_count": len(found.nested),
        "nested": [_told(one) for one in found.nested[:SHOWN]],
    }


def _told(one: NestedArchive) -> str:
    return f"{one.path} ({one.format}, {one.size} bytes)"
