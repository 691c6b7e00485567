"""What an npm package fixes for its installation: ``npm-shrinkwrap.json`` and ``package-lock.json``.

Everything that they list is installed at exactly that version, so each entry is a component; it is contained
where ``node_modules`` really has it (then it is found there too, and the two become one), else of the scope
that the lock says. Locks within ``node_modules`` are ignored, as npm ignores them. Formats: lock file
versions 1 (a tree of ``dependencies``), 2 and 3 (a table of ``packages`` by path).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controlplane.packaging.records import ArtefactFacts, Component, Scope
from controlplane.packaging.sbom.cataloguers.npm import exact_version, npm_purl
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import found
from controlplane.packaging.sbom.jsontext import mapping, parse_object
from controlplane.packaging.sbom.text import clean, shown
from controlplane.packaging.sbom.trees import MAX_METADATA, Tree

MAX_ENTRIES = 100_000
"""Packages of one lock file; large applications have about 5,000."""

MAX_DEPTH = 100
"""How deep the tree of a lock file of version 1 may be."""

_LOCK = re.compile(r"(?:^|/)(?:npm-shrinkwrap|package-lock)\.json$")
_NAME = re.compile(r"(?:^|/)node_modules/(?P<name>(?:@[^/]+/)?[^/]+)$")


def wants(tree: Tree, path: str) -> bool:
    """Return whether npm would install by this file."""
    return _LOCK.search(path) is not None and "node_modules/" not in path


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return one component for each package that the lock file fixes.

    Raises:
        BadMetadata: it is no lock file of versions 1 to 3, or passes a limit.
    """
    lock = parse_object(path, tree.read(path), MAX_METADATA)
    if "packages" in lock:
        entries = _by_path(path, mapping(path, "packages", lock["packages"]))
    else:
        entries = _by_tree(path, mapping(path, "dependencies", lock.get("dependencies")))
    for number, (name, entry) in enumerate(entries):
        if number >= MAX_ENTRIES:
            raise BadMetadata(path, f"it fixes more than {MAX_ENTRIES} packages; split it")
        yield _locked(path, name, entry)


def _by_path(member: str, packages: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in packages.items():
        entry = mapping(member, f"packages[{shown(key)!r}]", value)
        match = _NAME.search(key)
        # The rest are the project itself, its workspaces, and links to those.
        if match is not None and not entry.get("link"):
            yield clean(member, "name", entry.get("name", match["name"])), entry


def _by_tree(member: str, dependencies: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    waiting = [(dependencies, 1)]
    while waiting:
        level, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise BadMetadata(
                member, f"its dependencies are nested more than {MAX_DEPTH} deep; install again"
            )
        for name, value in level.items():
            entry = mapping(member, f"dependencies[{shown(name)!r}]", value)
            yield name, entry
            waiting.append((mapping(member, "dependencies", entry.get("dependencies")), depth + 1))


def _locked(member: str, name: str, entry: Mapping[str, Any]) -> Component:
    stated = clean(member, f"the version of {shown(name)!r}", entry.get("version", ""))
    alias = re.fullmatch(r"npm:(?P<name>@?[^@]+)@(?P<version>.+)", stated)
    if alias:
        name, stated = alias["name"], alias["version"]
    version = exact_version(stated)
    notes = (
        [] if version else [f"{member} fixes it to {shown(stated)!r}, which is no version of the registry"]
    )
    purl = npm_purl(member, name, version)
    return found(purl, name=clean(member, "name", name), scope=_scope(entry), notes=notes)


def _scope(entry: Mapping[str, Any]) -> Scope:
    if entry.get("dev") or entry.get("devOptional"):
        return Scope.DEVELOPMENT
    if entry.get("optional"):
        return Scope.OPTIONAL
    return Scope.REQUIRED
