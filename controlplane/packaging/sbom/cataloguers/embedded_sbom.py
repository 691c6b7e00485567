"""Documents that a Python distribution brings with it: ``*.dist-info/sboms/`` (PEP 770).

Tools that copy native libraries into wheels (auditwheel, for one) write there which system packages those
are: nothing else in a wheel says it. What such a document lists is contained, on the word of whoever built
the wheel, which is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from controlplane.packaging.records import ArtefactFacts, Component
from controlplane.packaging.sbom.documents import components_of
from controlplane.packaging.sbom.found import FINDER
from controlplane.packaging.sbom.trees import MAX_METADATA, Tree

_DOCUMENT = re.compile(r"(?:^|/)[^/]+\.dist-info/sboms/[^/]+\.json$")


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` is a document that a distribution brings with it."""
    return _DOCUMENT.search(path) is not None


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return what the document lists.

    Raises:
        BadMetadata: it is no document that is read.
    """
    for component in components_of(tree.read(path), path, MAX_METADATA):
        notes = sorted({*component.notes, f"listed by {path}"})
        yield replace(component, files=[tree.claimable(path)], found_by=[FINDER], notes=notes)
