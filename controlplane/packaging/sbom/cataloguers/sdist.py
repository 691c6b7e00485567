"""Python source distributions: ``PKG-INFO`` in the folder that everything lies in.

A source distribution does not list its files with digests, so it claims what lies in its folder, without the
folders in which projects keep code of others. Requirement and lock files in it are what its developers work
with: they are not installed with it, and are left alone. Its declared dependencies are treated as those of a
wheel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from controlplane.packaging.records import ArtefactFacts, ArtefactType, Component
from controlplane.packaging.sbom.cataloguers.python import distribution
from controlplane.packaging.sbom.found import folder_of, own_files
from controlplane.packaging.sbom.headers import first_paragraph
from controlplane.packaging.sbom.trees import Tree

_PKG_INFO = re.compile(r"(?:[^/]+/)?PKG-INFO$")
_NESTED_PKG_INFO = re.compile(r"(?:^|/)(?P<folder>[^/]+)/PKG-INFO$")


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` is the metadata of a source distribution, and not of an installed one."""
    match = _NESTED_PKG_INFO.search(path)
    if match is not None and match["folder"].endswith((".egg-info", ".dist-info")):
        return False
    return match is not None or path == "PKG-INFO"


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the source distribution, and what it pins exactly."""
    folder = folder_of(path)
    files = own_files(tree.below(folder), folder)
    notes = []
    if facts.type is ArtefactType.SDIST and not _PKG_INFO.match(path):
        notes.append("a source distribution within another one")
    return distribution(path, first_paragraph(path, tree.text(path)), files, notes)
