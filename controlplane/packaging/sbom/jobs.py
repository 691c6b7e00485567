"""What is called in an isolated process to list what is in a package; see ``isolation/functions.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from controlplane.packaging.archives.intake import inspect
from controlplane.packaging.archives.limits import DEFAULT
from controlplane.packaging.archives.listing import facts_from_json
from controlplane.packaging.building.archive import FILES
from controlplane.packaging.building.jobs import PACKAGES
from controlplane.packaging.building.work import ARCHIVE
from controlplane.packaging.records import FileEntry
from controlplane.packaging.sbom.coverage import coverage_of, open_requirements
from controlplane.packaging.sbom.cyclonedx import cyclonedx
from controlplane.packaging.sbom.external import told
from controlplane.packaging.sbom.inventory import joined, take_inventory
from controlplane.packaging.sbom.serialisation import (
    components_to_json,
    inventory_from_json,
    inventory_to_json,
)
from controlplane.packaging.sbom.spdx import spdx
from controlplane.packaging.sbom.tools import ToolResult

PACKAGE: Final = "package"
"""In ``in/``: the final bytes."""
INVENTORY: Final = "inventory.json"
"""What our own cataloguers found, from one job to the other."""
COMPONENTS, CYCLONEDX, SPDX = "components.json", "cyclonedx.json", "spdx.json"
"""In ``out/``: what was found, and the two documents."""
TREE: Final = "tree"
"""In ``out/``: the extracted files, where other tools are to look at them."""

_LIMITS: Final = replace(DEFAULT, ratio=2_000, members=2 * DEFAULT.members)
"""For packages of our own making: gzip packs a file of zeros 1,030 times, and what came in may have been
packed a little worse than we pack."""


def catalogue(kind: str, expected_sha256: str, facts: Mapping[str, Any], keep_tree: bool) -> dict[str, Any]:
    """List what is in ``in/package``, a package in the format ``kind``; the inventory goes to ``out/``.

    ``facts`` are those of the artefact. Raises ``BadArtefact``, ``BadMetadata`` and ``NoComponents``.
    """
    tree = Path("out" if keep_tree else "tmp") / TREE
    tree.mkdir()
    found = inspect(Path("in") / PACKAGE, PACKAGES[kind], tree, _LIMITS, expected_sha256=expected_sha256)
    root, files = (tree, found.files) if kind != ARCHIVE else (tree / FILES, _below(found.files))
    inventory = take_inventory(root, facts_from_json(facts), expected_sha256, files)
    (Path("out") / INVENTORY).write_bytes(inventory_to_json(inventory))
    return {}


def _below(files: Sequence[FileEntry]) -> list[FileEntry]:
    """Return the files of our archive by their package paths, without its manifest."""
    start = f"{FILES}/"
    return [replace(one, path=one.path.removeprefix(start)) for one in files if one.path.startswith(start)]


def write_documents(epoch: int, tools: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Join ``in/inventory.json`` with what tools found, and write components and both documents.

    Each of ``tools`` has ``name`` and ``version``, and ``document``: the name of what it wrote in ``in/``;
    empty where it did not look, which ``version`` says then. ``epoch`` is the documents' time. Raises
    ``BadMetadata``.
    """
    inventory = inventory_from_json((Path("in") / INVENTORY).read_bytes())
    whole = joined(inventory, [_result(tool) for tool in tools])
    out = Path("out")
    (out / COMPONENTS).write_bytes(components_to_json(whole.components))
    (out / CYCLONEDX).write_bytes(cyclonedx(whole, epoch))
    (out / SPDX).write_bytes(spdx(whole, epoch))
    coverage, needed = coverage_of(whole), open_requirements(whole)
    return {
        "component_count": len(whole.components),
        "file_count": coverage.files,
        "claimed_file_count": coverage.claimed,
        "unclaimed": list(coverage.unclaimed[:20]),
        "open_requirement_count": len(needed),
        "open_requirements": needed[:20],
        "tools": dict(whole.tools),
        "problems": list(whole.problems),
    }


def _result(tool: Mapping[str, str]) -> ToolResult:
    if not tool["document"]:
        return ToolResult(tool["name"], tool["version"])
    return told(tool["name"], tool["version"], (Path("in") / tool["document"]).read_bytes())
