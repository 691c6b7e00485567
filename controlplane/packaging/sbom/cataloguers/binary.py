"""An artefact that is one executable file: a component under the name and version that intake found.

It stands in for what nobody can name. Where the file says itself of what modules it was built, they are the
components: the artefact is what the document describes, and no part of itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.packaging.records import ArtefactFacts, ArtefactType, Component
from controlplane.packaging.sbom.found import found
from controlplane.packaging.sbom.purls import make_purl
from controlplane.packaging.sbom.trees import Tree

UNCOVERED = "no ecosystem files advisories about it: it is listed, and a scan does not cover it"


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` is the only file of the package."""
    return len(tree.files) == 1 and not tree.is_nested(path)


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the executable as a generic component; nothing where the artefact is of another type."""
    if facts.type is not ArtefactType.BINARY:
        return []
    digest = f"sha256:{tree.files[path].sha256}"
    purl = make_purl("generic", facts.name, facts.version, qualifiers={"checksum": digest}, member=path)
    return [found(purl, files=[path], notes=[UNCOVERED])]


def without_stand_in(components: Sequence[Component]) -> list[Component]:
    """Leave the stand-in out where a component of a known ecosystem claims the file."""
    explained = {path for one in components if one.ecosystem for path in one.files}
    return [one for one in components if UNCOVERED not in one.notes or not explained.issuperset(one.files)]
