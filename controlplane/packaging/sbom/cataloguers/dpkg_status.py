"""Debian packages that are installed in a tree: dpkg's database, in images and in archives of root folders.

``var/lib/dpkg/status`` has a paragraph for each package; images without dpkg have one file for each in
``status.d``. Which files a package owns stands in ``var/lib/dpkg/info/<package>.list``. The release is the
``os-release``'s of the same tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from controlplane.packaging.records import ArtefactFacts, Component
from controlplane.packaging.sbom.cataloguers.deb import package
from controlplane.packaging.sbom.headers import Headers, paragraphs, value
from controlplane.packaging.sbom.text import clean, required
from controlplane.packaging.sbom.trees import Tree

_STATUS = re.compile(r"(?P<root>(?:|.*/))var/lib/dpkg/(?:status|status\.d/(?P<single>[^/]+))$")
_OS_RELEASES = ("etc/os-release", "usr/lib/os-release")
_ASSIGNMENT = re.compile(r"\s*(?P<key>[A-Z_]+)=(?P<quote>[\"']?)(?P<value>.*?)(?P=quote)\s*")


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` is a database of installed packages."""
    match = _STATUS.match(path)
    return match is not None and not (match["single"] or "").endswith(".md5sums")


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return every package that is installed, with its files.

    Raises:
        BadMetadata: a paragraph breaks the format of control files.
    """
    match = _STATUS.match(path)
    root = match["root"] if match else ""
    distro = _distro(tree, root)
    for headers in paragraphs(path, tree.text(path)):
        if _is_installed(headers):
            yield from package(path, headers, distro, _owned(tree, root, path, headers))


def _is_installed(headers: Headers) -> bool:
    # "deinstall ok config-files" is a package that is gone; a status.d has no such field.
    return value(headers, "Status").rpartition(" ")[2] in ("", "installed")


def _distro(tree: Tree, root: str) -> str:
    for name in _OS_RELEASES:
        path = f"{root}{name}"
        if path in tree and not tree.files[path].link_target:
            lines = (_ASSIGNMENT.fullmatch(line) for line in tree.text(path).splitlines())
            stated = {line["key"]: line["value"] for line in lines if line is not None}
            return clean(
                path, "ID and VERSION_ID", _named(stated.get("ID", ""), stated.get("VERSION_ID", ""))
            )
    return ""


def _named(distribution: str, release: str) -> str:
    return f"{distribution}-{release}" if distribution and release else ""


def _owned(tree: Tree, root: str, status: str, headers: Headers) -> Iterator[str]:
    name = required(status, "Package", value(headers, "Package"))
    architecture = value(headers, "Architecture")
    folder = f"{root}var/lib/dpkg/info/"
    for listing in (f"{folder}{name}.list", f"{folder}{name}:{architecture}.list"):
        if listing in tree and not tree.files[listing].link_target:
            yield listing
            owned = (f"{root}{line.strip().lstrip('/')}" for line in tree.text(listing).splitlines())
            yield from (path for path in owned if path in tree.files)
