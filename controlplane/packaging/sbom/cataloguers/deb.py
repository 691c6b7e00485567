"""Debian packages: the ``control`` file of a .deb, whose files lie below ``data/``.

A control file does not say of which release its package is. The release is known where Debian's own version
says it (``+deb12u1``, ``~bpo12+1``: the suffixes of stable updates and backports), or where an image has an
``os-release``; else the ecosystem is "Debian" without one. The package URL has the vendor ``debian``, or
``ubuntu`` where the version or the maintainer is Ubuntu's. Debian's advisories speak of source packages, so
``Source`` is kept. What a package was built from statically (``Static-Built-Using``, ``Built-Using``) is in
it, and is a component that is contained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from controlplane.packaging.records import ArtefactFacts, Component, Requirement, Scope
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import found
from controlplane.packaging.sbom.headers import Headers, first_paragraph, paragraphs, value
from controlplane.packaging.sbom.purls import Purl, make_purl
from controlplane.packaging.sbom.text import clean, required, shown
from controlplane.packaging.sbom.trees import Tree

MAX_REQUIREMENTS = 10_000
"""Relations of one package."""

_CONTROL = re.compile(r"(?:^|!/)control/control$")
_RELEASE_IN_VERSION = re.compile(r"(?:[+~]deb([0-9]{1,2})u[0-9]+|~bpo([0-9]{1,2})\+[0-9]+)")
_RELATION = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\((?P<constraint>[^)]*)\))?[^()]*"
)
_SOURCE = re.compile(r"(?P<name>[^\s(]+)(?:\s*\((?P<version>[^)]+)\))?")
_BUILT_USING = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]*)\s*\(=\s*(?P<version>[^)\s]+)\s*\)")
_RELATIONS = (
    ("Pre-Depends", Scope.REQUIRED),
    ("Depends", Scope.REQUIRED),
    ("Recommends", Scope.OPTIONAL),
    ("Suggests", Scope.OPTIONAL),
)


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` is the control file of the package, or of one that was extracted within it."""
    return _CONTROL.search(path) is not None


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the package with all of its files, what it has built in, and what it pins exactly."""
    headers = first_paragraph(path, tree.text(path))
    folder = path.removesuffix("control/control")
    name = required(path, "Package", value(headers, "Package"))
    copyright_file = f"{folder}data/usr/share/doc/{name}/copyright"
    licences = stated_licences(tree, copyright_file)
    files = [*tree.below(f"{folder}data/"), *tree.below(f"{folder}control/")]
    return package(path, headers, "", files, licences)


def package(
    member: str, headers: Headers, distro: str, files: Iterable[str], licences: Iterable[str] = ()
) -> list[Component]:
    """Return the component of one control paragraph, first, and those that it has built in or pins.

    ``distro`` is the release that it belongs to, as a package URL writes it ("debian-12"); empty where only
    the version can say it.

    Raises:
        BadMetadata: Package or Version are missing or unusable, or a relation cannot be read.
    """
    name = required(member, "Package", value(headers, "Package"))
    version = required(member, "Version", value(headers, "Version"))
    architecture = clean(member, "Architecture", value(headers, "Architecture"))
    vendor, release = _origin(headers, version, distro)
    purl = _purl(member, name, version, architecture, vendor, release)
    built_in = list(_built_using(member, headers, vendor, release))
    pinned: list[Component] = []
    requires = list(_requirements(member, headers, purl, pinned))
    source = _source(member, headers, name, version)
    own = found(purl, files=files, licences=licences, requires=requires, source=source)
    return [own, *built_in, *pinned]


def stated_licences(tree: Tree, path: str) -> list[str]:
    """Return the short names of licences in a machine-readable copyright file (DEP 5)."""
    if path not in tree or tree.files[path].link_target:
        return []
    try:
        blocks = list(paragraphs(path, tree.text(path)))
    except BadMetadata:
        # Free text, as Debian's policy allows it.
        return []
    if not blocks or "copyright-format" not in value(blocks[0], "Format"):
        return []
    names = (value(block, "License").partition("\n")[0].strip() for block in blocks)
    return sorted(set(filter(None, names)))


def _origin(headers: Headers, version: str, distro: str) -> tuple[str, str]:
    if distro:
        return distro.partition("-")[0], distro
    if "ubuntu" in version or "ubuntu.com" in value(headers, "Maintainer"):
        return "ubuntu", ""
    match = _RELEASE_IN_VERSION.search(version)
    return "debian", f"debian-{match[1] or match[2]}" if match else ""


def _purl(member: str, name: str, version: str, architecture: str, vendor: str, release: str) -> Purl:
    qualifiers = {"arch": architecture, "distro": release}
    return make_purl("deb", name, version, namespace=vendor, qualifiers=qualifiers, member=member)


def _source(member: str, headers: Headers, name: str, version: str) -> tuple[str, str]:
    match = _SOURCE.fullmatch(clean(member, "Source", value(headers, "Source")))
    if match is None:
        return name, version
    return match["name"], match["version"] or version


def _built_using(member: str, headers: Headers, vendor: str, release: str) -> Iterator[Component]:
    for field in ("Built-Using", "Static-Built-Using"):
        for relation in _relations(member, headers, field):
            match = _BUILT_USING.fullmatch(relation)
            if match is None:
                raise BadMetadata(
                    member, f"{field} {shown(relation)!r} is not 'source (= version)'; correct it"
                )
            purl = _purl(member, match["name"], match["version"], "source", vendor, release)
            yield found(purl, source=(match["name"], match["version"]))


def _requirements(
    member: str, headers: Headers, dependent: Purl, pinned: list[Component]
) -> Iterator[Requirement]:
    for field, scope in _RELATIONS:
        for relation in _relations(member, headers, field):
            yield _requirement(member, field, relation, scope, dependent, pinned)


def _requirement(
    member: str, field: str, relation: str, scope: Scope, dependent: Purl, pinned: list[Component]
) -> Requirement:
    alternatives = [_RELATION.fullmatch(part.strip()) for part in relation.split("|")]
    first = alternatives[0]
    if first is None or None in alternatives:
        raise BadMetadata(member, f"{field} {shown(relation)!r} is not 'name (relation version)'; correct it")
    constraint = (first["constraint"] or "").strip()
    if len(alternatives) > 1:
        return Requirement(first["name"], relation, scope)
    if not constraint.startswith("="):
        return Requirement(first["name"], constraint, scope)
    version = constraint.removeprefix("=").strip()
    # Which architecture will be installed is not this package's to say, unless it has one itself.
    purl = make_purl(
        "deb",
        first["name"],
        version,
        namespace=dependent.namespace,
        qualifiers={"distro": dependent.qualifier("distro")},
        member=member,
    )
    pinned.append(found(purl, scope=scope))
    return Requirement(first["name"], constraint, scope, str(purl))


def _relations(member: str, headers: Headers, field: str) -> list[str]:
    text = " ".join(value(headers, field).split())
    relations = [part.strip() for part in text.split(",") if part.strip()]
    if len(relations) > MAX_REQUIREMENTS:
        raise BadMetadata(member, f"{field} has {len(relations)} relations, more than {MAX_REQUIREMENTS}")
    return [clean(member, field, relation) for relation in relations]
