"""One cataloguer a format. Each says which paths it reads, and what components one of them stands for.

A cataloguer may raise ``BadMetadata``. Where that concerns the metadata by which the package says what it is,
the stage fails; where it concerns a file deeper inside (a broken ``package.json`` among test data), it
becomes a problem of the inventory, and the files stay unclaimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from controlplane.packaging.records import ArtefactFacts, ArtefactType, Component
from controlplane.packaging.sbom import nested
from controlplane.packaging.sbom.cataloguers import (
    binary,
    deb,
    dpkg_status,
    embedded_sbom,
    golang,
    jar,
    maven_repository,
    npm,
    npm_locks,
    python,
    sdist,
    vendored,
)
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.merging import merged
from controlplane.packaging.sbom.trees import Tree

MAX_COMPONENTS = 100_000
"""Of one package; an image of a whole operating system has some thousands."""

MAX_PROBLEMS = 200
"""Problems that are kept; how many more there were is said."""


class Cataloguer(Protocol):
    """A module of this package."""

    def wants(self, tree: Tree, path: str) -> bool:
        """Return whether ``components`` should read this file."""

    def components(self, tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
        """Return what the file stands for; none where it stands for nothing.

        Raises:
            BadMetadata: the file breaks its format's rules.
        """


CATALOGUERS: Sequence[Cataloguer] = (
    python,
    vendored,
    embedded_sbom,
    sdist,
    npm,
    npm_locks,
    jar,
    maven_repository,
    deb,
    dpkg_status,
    golang,
    binary,
)

_OWN: dict[ArtefactType, Cataloguer] = {
    ArtefactType.WHEEL: python,
    ArtefactType.SDIST: sdist,
    ArtefactType.NPM: npm,
    ArtefactType.JAR: jar,
    ArtefactType.DEB: deb,
    ArtefactType.BINARY: binary,
}


def catalogue(tree: Tree, facts: ArtefactFacts) -> tuple[list[Component], list[str]]:
    """Return the components of a package, merged and sorted, and the problems on the way, in words.

    Raises:
        BadMetadata: the metadata by which the package says what it is cannot be read, or a limit is passed.
    """
    problems = nested.expand(tree)
    own = _own_path(tree, facts)
    components: list[Component] = []
    for path in tree.paths:
        for cataloguer in CATALOGUERS:
            try:
                if cataloguer.wants(tree, path):
                    components += cataloguer.components(tree, path, facts)
            except BadMetadata as error:
                if path == own and cataloguer is _OWN.get(facts.type):
                    raise
                problems.append(str(error))
        if len(components) > MAX_COMPONENTS:
            raise BadMetadata(path, f"more than {MAX_COMPONENTS} components were found; split the package")
    return merged(binary.without_stand_in(components)), _bounded(problems)


def _own_path(tree: Tree, facts: ArtefactFacts) -> str:
    """Return the path of the metadata by which the package says what it is; the one nearest to the root."""
    cataloguer = _OWN.get(facts.type)
    if cataloguer is None:
        return ""
    wanted = [path for path in tree.paths if not tree.is_nested(path) and cataloguer.wants(tree, path)]
    return min(wanted, key=lambda path: (path.count("/"), path), default="")


def _bounded(problems: Sequence[str]) -> list[str]:
    unique = sorted(set(problems))
    more = len(unique) - MAX_PROBLEMS
    return unique if more <= 0 else [*unique[:MAX_PROBLEMS], f"and {more} problems more"]
