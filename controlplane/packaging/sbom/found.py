"""Components as our own cataloguers make them."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.packaging.records import Component, Requirement, Scope
from controlplane.packaging.sbom.ecosystems import component_name, ecosystem_of
from controlplane.packaging.sbom.licences import own_words
from controlplane.packaging.sbom.merging import requirements
from controlplane.packaging.sbom.purls import Purl

FINDER = "fleetwright"
"""Who found what our own cataloguers found."""

MAX_LICENCES = 50
"""Licences of one component that are kept."""

OUTSIDE_FOLDERS = frozenset(
    {"node_modules", "_vendor", "vendor", "vendored", "third_party", "extern", "externals"}
)
"""Folders in which projects keep code of others: a project does not claim what lies there."""


def found(
    purl: Purl,
    *,
    name: str = "",
    files: Iterable[str] = (),
    licences: Iterable[str] = (),
    scope: Scope = Scope.CONTAINED,
    requires: Iterable[Requirement] = (),
    source: tuple[str, str] = ("", ""),
    notes: Iterable[str] = (),
) -> Component:
    """Return a component under the ecosystem and name that its package URL says.

    ``name`` overrides the latter where the URL folds it; ``source`` is the source package's name and version.
    """
    words = dict.fromkeys(filter(None, map(own_words, licences)))
    return Component(
        ecosystem=ecosystem_of(purl),
        name=name or component_name(purl),
        version=purl.version,
        purl=str(purl),
        files=sorted(set(files)),
        found_by=[FINDER],
        licences=list(words)[:MAX_LICENCES],
        scope=scope,
        requires=requirements(requires),
        source_name=source[0],
        source_version=source[1],
        notes=sorted(set(notes)),
    )


def own_files(paths: Iterable[str], folder: str) -> list[str]:
    """Return the paths below ``folder`` that do not lie in a folder for code of others."""
    start = len(folder)
    return [path for path in paths if OUTSIDE_FOLDERS.isdisjoint(path[start:].split("/")[:-1])]


def folder_of(path: str) -> str:
    """Return the folder that a path lies in, with "/" at the end; empty for the root."""
    head, slash, _ = path.rpartition("/")
    return head + slash
