"""npm packages: every ``package.json`` that has a name and a version.

The package itself lies in the only folder at the root (npm writes ``package/``), what it bundles in
``node_modules``. Other ``package.json`` files with a name and a version are copies of packages too; those
without (``{"type": "module"}``) set an option for a folder and stand for nothing. A dependency on one version
exactly is a component, as for wheels; a development dependency is only a relationship, for nobody who
installs the package gets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controlplane.packaging.records import ArtefactFacts, Component, Requirement, Scope
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import folder_of, found, own_files
from controlplane.packaging.sbom.jsontext import mapping, parse_object
from controlplane.packaging.sbom.purls import Purl, make_purl
from controlplane.packaging.sbom.text import clean, shown
from controlplane.packaging.sbom.trees import MAX_METADATA, Tree

MAX_REQUIREMENTS = 10_000
"""Declared dependencies of one package."""

_EXACT = re.compile(r"[=v\s]*([0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)")
_ALIAS = re.compile(r"npm:(?P<name>@?[^@]+)@(?P<range>.+)")
_SECTIONS = (
    ("dependencies", Scope.REQUIRED),
    ("peerDependencies", Scope.REQUIRED),
    ("optionalDependencies", Scope.OPTIONAL),
    ("devDependencies", Scope.DEVELOPMENT),
)
_ROOT = re.compile(r"(?:[^/]+/)?package\.json$")


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` may describe a package."""
    return path == "package.json" or path.endswith("/package.json")


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the package, and what it pins exactly; nothing for a file without name and version.

    Raises:
        BadMetadata: it is no JSON object, or a field that is there has another type than npm gives it.
    """
    described = parse_object(path, tree.read(path), MAX_METADATA)
    if not described.get("name") or not described.get("version"):
        if _ROOT.match(path) and facts.type.value == "npm":
            raise BadMetadata(path, "name or version is missing; npm packs no package without both")
        return []
    pinned: list[Component] = []
    requires = list(_requirements(path, described, pinned))
    purl = npm_purl(path, described["name"], described["version"])
    folder = folder_of(path)
    own = found(
        purl,
        name=clean(path, "name", described["name"]),
        files=own_files(tree.below(folder), folder),
        licences=_licences(described),
        requires=requires,
    )
    return [own, *pinned]


def npm_purl(member: str, name: object, version: object) -> Purl:
    """Return the package URL of a package; raise ``BadMetadata`` where name or version are unusable."""
    scope, slash, bare = clean(member, "name", name).rpartition("/")
    if slash and not scope.startswith("@"):
        raise BadMetadata(member, f"the name {shown(name)!r} has a '/' and no scope '@…'; correct it")
    return make_purl("npm", bare, clean(member, "version", version), namespace=scope, member=member)


def exact_version(constraint: str) -> str:
    """Return the version that a range of npm names exactly; empty where it leaves a choice."""
    match = _EXACT.fullmatch(constraint.strip())
    return match[1] if match else ""


def _requirements(
    member: str, described: Mapping[str, Any], pinned: list[Component]
) -> Iterator[Requirement]:
    optional_peers = mapping(member, "peerDependenciesMeta", described.get("peerDependenciesMeta"))
    for section, scope in _SECTIONS:
        declared = mapping(member, section, described.get(section))
        if len(declared) > MAX_REQUIREMENTS:
            raise BadMetadata(member, f"{section} has {len(declared)} entries, more than {MAX_REQUIREMENTS}")
        for name, constraint in declared.items():
            lenient = section == "peerDependencies" and name in optional_peers
            yield _requirement(member, name, constraint, Scope.OPTIONAL if lenient else scope, pinned)


def _requirement(
    member: str, name: str, constraint: object, scope: Scope, pinned: list[Component]
) -> Requirement:
    text = clean(member, f"the version of {shown(name)!r}", constraint)
    alias = _ALIAS.fullmatch(text)
    real, version = (alias["name"], exact_version(alias["range"])) if alias else (name, exact_version(text))
    purl = ""
    if version and scope is not Scope.DEVELOPMENT:
        component = found(npm_purl(member, real, version), name=clean(member, "name", real), scope=scope)
        pinned.append(component)
        purl = component.purl
    return Requirement(clean(member, "name of a dependency", real), text, scope, purl)


def _licences(described: Mapping[str, Any]) -> Iterator[str]:
    stated = described.get("license") or described.get("licenses") or ()
    for entry in stated if isinstance(stated, list) else [stated]:
        words = entry.get("type") if isinstance(entry, dict) else entry
        if isinstance(words, str):
            yield words
