"""Jars that lie in a folder laid out as a Maven repository: the path says their coordinates.

Debian's Java packages ship jars without a ``pom.properties`` but install them into ``/usr/share/maven-repo``,
as links to ``/usr/share/java``:
``commons-collections/commons-collections/3.2.2/commons-collections-3.2.2.jar`` is how
``commons-collections3.jar`` is told from a package of that name, which no advisory knows. Layout: Maven 2
repository, ``<group as folders>/<artifact>/<version>/<artifact>-<version>.<jar|pom>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from controlplane.packaging.records import ArtefactFacts, Component
from controlplane.packaging.sbom.found import found
from controlplane.packaging.sbom.purls import make_purl
from controlplane.packaging.sbom.trees import Tree

_IN_REPOSITORY = re.compile(
    r"(?:^|/)(?:maven-repo|\.m2/repository)/(?P<group>[^!]+)/(?P<artifact>[^/]+)/(?P<version>[^/]+)"
    r"/(?P=artifact)-(?P=version)\.pom$"
)
ALIAS = "debian"
"""A version that Debian gives to every artifact beside its real one, so that packages need not name that."""


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` is the project model of an artifact in a repository that is there with it.

    A model without a jar is a parent, which other models refer to: no software.
    """
    match = _IN_REPOSITORY.search(path)
    return match is not None and match["version"] != ALIAS and _jar_of(path) in tree.files


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the artifact, which claims its model and its jar, through a link where it is one."""
    match = _IN_REPOSITORY.search(path)
    if match is None:
        return []
    group = match["group"].replace("/", ".")
    purl = make_purl("maven", match["artifact"], match["version"], namespace=group, member=path)
    return [found(purl, files=[path, *_jars(tree, path)])]


def names(tree: Tree, jar: str) -> bool:
    """Return whether a repository says the coordinates of the file ``jar``, by itself or by a link."""
    models = (name.removesuffix(".jar") + ".pom" for name in tree.names_of(jar))
    return any(model in tree and wants(tree, model) for model in models)


def _jars(tree: Tree, model: str) -> Iterable[str]:
    jar = _jar_of(model)
    file = tree.target(jar)
    # The other names of the same file are links, which belong to it.
    return {jar, *tree.names_of(file)} if file in tree.files else {jar}


def _jar_of(model: str) -> str:
    return model.removesuffix(".pom") + ".jar"
