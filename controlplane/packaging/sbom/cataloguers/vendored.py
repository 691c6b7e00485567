"""Python projects that are copied into another one and listed beside the copies.

pip and setuptools keep ``vendor.txt`` or ``vendored.txt`` in a folder ``_vendor``: lines ``name==version``,
as a requirements file has them. Such a line is a component that is contained, where that folder really holds
code. The same list elsewhere is somebody's requirements file: what a developer installs, neither part of the
package nor needed by it, and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement

from controlplane.packaging.records import ArtefactFacts, Component
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import folder_of, found
from controlplane.packaging.sbom.purls import make_purl
from controlplane.packaging.sbom.text import shown
from controlplane.packaging.sbom.trees import Tree

MAX_LINES = 5_000
"""Lines of one list; pip's has about 30."""

_LIST = re.compile(r"(?:^|/)(?:_vendor|vendor|vendored|_vendored|extern)/(?:vendor|vendored)\.txt$")


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` lists what lies in the folder that it is in, and code lies there."""
    if not _LIST.search(path) or tree.is_nested(path):
        return False
    return any(other.endswith(".py") for other in tree.below(folder_of(path)))


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return a component for each line that names one version."""
    lines = tree.text(path).splitlines()
    if len(lines) > MAX_LINES:
        raise BadMetadata(path, f"it has {len(lines)} lines, more than {MAX_LINES}; split it")
    for line in lines:
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if text and not text.startswith("-"):
            yield from _listed(tree, path, text)


def _listed(tree: Tree, path: str, line: str) -> Iterable[Component]:
    try:
        parsed = Requirement(line)
    except (InvalidRequirement, RecursionError):
        raise BadMetadata(
            path, f"the line {shown(line)!r} is no requirement 'name==version'; correct it"
        ) from None
    versions = [specifier.version for specifier in parsed.specifier if specifier.operator in {"==", "==="}]
    if not versions:
        raise BadMetadata(path, f"the line {shown(line)!r} names no version; write 'name==version'")
    files = _files(tree, folder_of(path), parsed.name)
    notes = [] if files else [f"listed in {path}; no folder or file there has its name"]
    yield found(make_purl("pypi", parsed.name, versions[0], member=path), files=files, notes=notes)


def _files(tree: Tree, folder: str, name: str) -> list[str]:
    modules = dict.fromkeys((name, name.replace("-", "_"), name.replace("-", "_").lower()))
    return [
        path
        for module in modules
        for path in tree.below(folder + module)
        if path[len(folder + module) :].startswith("/") or path == f"{folder}{module}.py"
    ]
