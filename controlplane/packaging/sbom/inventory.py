"""The stage's first half: from a folder of extracted files to what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from controlplane.packaging.records import ArtefactFacts, FileEntry, Inventory
from controlplane.packaging.sbom.cataloguers import catalogue
from controlplane.packaging.sbom.coverage import require_components
from controlplane.packaging.sbom.found import FINDER
from controlplane.packaging.sbom.merging import join
from controlplane.packaging.sbom.tools import ToolResult, own_version
from controlplane.packaging.sbom.trees import Tree

_CHUNK = 1024 * 1024


def take_inventory(root: Path, facts: ArtefactFacts, sha256: str, files: Sequence[FileEntry]) -> Inventory:
    """Return what our own cataloguers find in the files below ``root``.

    ``facts`` and ``files`` are what the reader said of the artefact whose SHA-256 is ``sha256``; for a .deb
    the data lies below ``data/`` and the control files below ``control/``. Runs in the isolated subprocess.

    Raises:
        BadMetadata: the package's own metadata cannot be read, or a limit is passed.
        NoComponents: nothing was found, in an artefact of a type that names itself.
    """
    tree = Tree(root, files)
    components, problems = catalogue(tree, facts)
    inventory = Inventory(
        facts=facts,
        sha256=sha256,
        components=components,
        files=list(_with_sha1(tree, files)),
        tools={FINDER: own_version()},
        problems=problems,
    )
    require_components(inventory)
    return inventory


def joined(inventory: Inventory, results: Iterable[ToolResult]) -> Inventory:
    """Return the inventory with what other tools found; tools that did not run say why, and add nothing.

    Files that a tool names and the package does not have are left out.
    """
    known = {entry.path for entry in inventory.files}
    tools: Mapping[str, str] = inventory.tools
    components = list(inventory.components)
    for result in results:
        theirs = [
            replace(component, files=[path for path in component.files if path in known])
            for component in result.components
        ]
        components = join(components, theirs)
        tools = {**tools, result.tool: result.version}
    return replace(inventory, components=components, tools=dict(sorted(tools.items())))


def _with_sha1(tree: Tree, files: Sequence[FileEntry]) -> Iterable[FileEntry]:
    for entry in sorted(files, key=lambda entry: entry.path):
        yield entry if entry.link_target or entry.sha1 else replace(entry, sha1=_sha1(tree, entry.path))


def _sha1(tree: Tree, path: str) -> str:
    # SPDX 2.3 demands it as an identifier; what protects a file is its SHA-256.
    digest = hashlib.sha1(usedforsecurity=False)
    with tree.open(path) as file:
        for offset in range(0, file.size, _CHUNK):
            digest.update(file.read_at(offset, _CHUNK))
    return digest.hexdigest()
