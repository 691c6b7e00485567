"""Python distributions, in a wheel, installed, or vendored: ``*.dist-info/METADATA`` and ``*.egg-info``.

What a distribution declares to need is a relationship with its scope, and no component: which version will be
there is not known. Where it names one version exactly (``Requires-Dist: x==1.2``), that version is known, so
it is a component too, of scope REQUIRED or, for an extra, OPTIONAL: a scan must see that installing this
wheel brings it. Rules: the core metadata and RECORD specifications of the Python Packaging User Guide.
"""

from __future__ import annotations

import base64
import binascii
import csv
import re
from collections.abc import Iterable, Iterator, Sequence

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement
from packaging.version import InvalidVersion, Version

from controlplane.packaging.records import ArtefactFacts, Component, Requirement, Scope
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import folder_of, found
from controlplane.packaging.sbom.headers import Headers, first_paragraph, value
from controlplane.packaging.sbom.purls import make_purl, normal_pypi_name
from controlplane.packaging.sbom.text import clean, required, shown
from controlplane.packaging.sbom.trees import Tree

MAX_RECORDS = 500_000
"""Lines of one RECORD; the largest distributions have about 20,000 files."""

MAX_REQUIREMENTS = 10_000
"""Declared dependencies of one distribution."""

_METADATA = re.compile(r"(?:^|/)[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)$")
_EXTRA = re.compile(r"\bextra\b")


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` is the metadata of a distribution that is built."""
    return _METADATA.search(path) is not None


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the distribution, with the files that its RECORD lists, and what it pins exactly."""
    headers = first_paragraph(path, tree.text(path))
    claimed, notes = _claimed(tree, path)
    return distribution(path, headers, claimed, notes)


def distribution(
    member: str, headers: Headers, files: Iterable[str], notes: Iterable[str]
) -> Sequence[Component]:
    """Return the component that core metadata describes, first, and those that it pins exactly.

    Raises:
        BadMetadata: name or version are missing or unusable, or a requirement cannot be read.
    """
    name = required(member, "Name", value(headers, "Name"))
    version = required(member, "Version", value(headers, "Version"))
    pinned: list[Component] = []
    requires = list(_requirements(member, headers, pinned))
    own = found(
        make_purl("pypi", name, version, member=member),
        files=files,
        licences=_licences(headers),
        requires=requires,
        notes=[*notes, *_version_notes(version)],
    )
    return [own, *pinned]


def _version_notes(version: str) -> list[str]:
    try:
        Version(version)
    except InvalidVersion:
        return [f"its version {shown(version)!r} is not one of Python's (PEP 440): it compares with none"]
    return []


def _licences(headers: Headers) -> list[str]:
    if expression := value(headers, "License-Expression"):
        return [expression]
    classified = [
        classifier.rpartition("::")[2].strip()
        for classifier in headers.get("classifier", ())
        if classifier.startswith("License ::")
    ]
    stated = value(headers, "License")
    # Old metadata has whole licence texts in this field; a classifier says more in less.
    return [stated] if stated and ("\n" not in stated or not classified) else classified


def _requirements(member: str, headers: Headers, pinned: list[Component]) -> Iterator[Requirement]:
    lines = headers.get("requires-dist", ())
    if len(lines) > MAX_REQUIREMENTS:
        raise BadMetadata(member, f"it declares {len(lines)} dependencies, more than {MAX_REQUIREMENTS}")
    for line in lines:
        # Folded lines belong together; old tools put names in parentheses, which the parser knows.
        yield _requirement(member, clean(member, "Requires-Dist", " ".join(line.split())), pinned)


def _requirement(member: str, line: str, pinned: list[Component]) -> Requirement:
    try:
        parsed = ParsedRequirement(line)
    except (InvalidRequirement, RecursionError) as error:
        raise BadMetadata(
            member, f"Requires-Dist {shown(line)!r} is no requirement: {shown(error)}"
        ) from None
    marker = str(parsed.marker) if parsed.marker else ""
    scope = Scope.OPTIONAL if _EXTRA.search(marker) else Scope.REQUIRED
    constraint = f"@ {parsed.url}" if parsed.url else str(parsed.specifier)
    version = _exact(parsed)
    name = normal_pypi_name(parsed.name)
    purl = ""
    if version:
        component = found(make_purl("pypi", name, version, member=member), scope=scope)
        pinned.append(component)
        purl = component.purl
    return Requirement(name, f"{constraint}; {marker}" if marker else constraint, scope, purl)


def _exact(parsed: ParsedRequirement) -> str:
    for specifier in parsed.specifier:
        if specifier.operator in {"==", "==="} and not specifier.version.endswith(".*"):
            return specifier.version
    return ""


def _claimed(tree: Tree, path: str) -> tuple[list[str], list[str]]:
    """Return the files of the distribution whose metadata is at ``path``, and what is to be said of them."""
    if tree.is_nested(path):
        return [tree.claimable(path)], []
    if path.endswith(".egg-info"):
        return [path], ["its metadata does not list its files"]
    folder = folder_of(path)
    metadata = list(tree.below(folder))
    record = f"{folder}RECORD"
    if record in tree:
        listed, notes = _recorded(tree, record)
        return [*metadata, *listed], notes
    notes = ["it has no RECORD, so its files are guessed by its top level"]
    return [*metadata, *_top_level(tree, folder)], notes


def _recorded(tree: Tree, record: str) -> tuple[list[str], list[str]]:
    base = folder_of(folder_of(record).rstrip("/"))
    claimed, changed = [], 0
    for name, digest in _rows(record, tree.text(record)):
        entry = tree.files.get(_resolved(base, name))
        if entry is None:
            continue
        if digest and digest != entry.sha256:
            changed += 1
            continue
        claimed.append(entry.path)
    notes = [f"{changed} of its files differ from its RECORD and are not claimed by it"] if changed else []
    return claimed, notes


def _rows(record: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        for number, row in enumerate(csv.reader(text.splitlines())):
            if number >= MAX_RECORDS:
                raise BadMetadata(record, f"it has more than {MAX_RECORDS} lines; split the distribution")
            if row:
                yield row[0], _sha256(row[1] if len(row) > 1 else "")
    except csv.Error as error:
        raise BadMetadata(record, f"it is no comma-separated list of files: {shown(error)}") from None


def _sha256(recorded: str) -> str:
    """Return the SHA-256 of a RECORD's "sha256=<base64url>" in hexadecimal; empty for another kind."""
    algorithm, _, text = recorded.partition("=")
    if algorithm != "sha256":
        return ""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
    except (binascii.Error, ValueError):
        # It matches no file, which is what a digest that cannot be read should do.
        return "unreadable"


def _resolved(base: str, name: str) -> str:
    parts: list[str] = []
    for part in (base + name).split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _top_level(tree: Tree, metadata: str) -> list[str]:
    listing = f"{metadata}top_level.txt"
    if listing not in tree:
        return []
    base = folder_of(metadata.rstrip("/"))
    names = [line.strip() for line in tree.text(listing).splitlines()[:1_000] if line.strip()]
    starts = [base + name for name in names]
    return [
        path for start in starts for path in tree.below(start) if path[len(start) :].startswith(("/", ".py"))
    ]
