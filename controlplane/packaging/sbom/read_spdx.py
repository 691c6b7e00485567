"""SPDX 2, read: what ``spdx.py`` wrote, and what other tools write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.packaging.records import Component, Scope
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import FINDER
from controlplane.packaging.sbom.jsontext import objects, parse_object
from controlplane.packaging.sbom.read_component import listed, scope_of
from controlplane.packaging.sbom.text import clean

MAX_ENTRIES = 500_000
"""Packages, files or relationships of one document."""

_NOTHING = frozenset({"", "NONE", "NOASSERTION"})
_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_SCOPES = {"OPTIONAL_DEPENDENCY_OF": Scope.OPTIONAL, "DEV_DEPENDENCY_OF": Scope.DEVELOPMENT}


def spdx_components(member: str, document: Mapping[str, Any]) -> Iterator[Component]:
    """Yield every package of a document; what it describes as a whole only where that has a package URL.

    Raises:
        BadMetadata: a field has another type than the schema gives it, or a limit is passed.
    """
    relations = objects(member, "relationships", document.get("relationships"), MAX_ENTRIES)
    files = _files_by_package(member, document, relations)
    scopes = _scopes(relations)
    described = _described(document, relations)
    texts = _extracted(member, document)
    for index, package in enumerate(objects(member, "packages", document.get("packages"), MAX_ENTRIES)):
        place = f"{member}: packages[{index}]"
        identifier = clean(place, "SPDXID", package.get("SPDXID") or "")
        purl = _purl(place, package)
        if not purl and identifier in described:
            continue
        told = _told(place, package)
        yield listed(
            place,
            purl=purl,
            name=clean(place, "name", package.get("name") or ""),
            version=package.get("versionInfo") or "",
            files=files.get(identifier, ()),
            licences=_licences(package, texts),
            scope=scope_of(place, told["scope"])
            if "scope" in told
            else scopes.get(identifier, Scope.CONTAINED),
            ecosystem=told.get("ecosystem", ""),
            found_by=told.get("found_by", ()),
            source=told.get("source", ("", "")),
            notes=told.get("notes", ()),
        )


def _end(relation: Mapping[str, Any], field: str) -> str:
    value = relation.get(field)
    return value if isinstance(value, str) else ""


def _scopes(relations: Sequence[Mapping[str, Any]]) -> Mapping[str, Scope]:
    kinds = ((_end(one, "spdxElementId"), _end(one, "relationshipType")) for one in relations)
    return {identifier: _SCOPES[kind] for identifier, kind in kinds if kind in _SCOPES}


def _described(document: Mapping[str, Any], relations: Sequence[Mapping[str, Any]]) -> set[str]:
    stated = document.get("documentDescribes")
    described = {entry for entry in stated if isinstance(entry, str)} if isinstance(stated, list) else set()
    for relation in relations:
        if relation.get("relationshipType") == "DESCRIBES":
            described.add(_end(relation, "relatedSpdxElement"))
    return described


def _files_by_package(
    member: str, document: Mapping[str, Any], relations: Sequence[Mapping[str, Any]]
) -> Mapping[str, Sequence[str]]:
    names = {}
    for entry in objects(member, "files", document.get("files"), MAX_ENTRIES):
        identifier, name = entry.get("SPDXID"), entry.get("fileName")
        if isinstance(identifier, str) and isinstance(name, str):
            names[identifier] = name.removeprefix("./")
    files: dict[str, list[str]] = {}
    for relation in relations:
        related = _end(relation, "relatedSpdxElement")
        if relation.get("relationshipType") == "CONTAINS" and related in names:
            files.setdefault(_end(relation, "spdxElementId"), []).append(names[related])
    return files


def _purl(place: str, package: Mapping[str, Any]) -> str:
    for reference in objects(place, "externalRefs", package.get("externalRefs"), 10_000):
        if reference.get("referenceType") == "purl":
            return clean(place, "referenceLocator", reference.get("referenceLocator"), 4_096)
    return ""


def _told(place: str, package: Mapping[str, Any]) -> dict[str, Any]:
    """Return what our own annotation says beyond SPDX's fields; nothing for a package of others."""
    for annotation in objects(place, "annotations", package.get("annotations"), 10_000):
        annotator, comment = annotation.get("annotator"), annotation.get("comment")
        if (
            isinstance(annotator, str)
            and annotator.startswith(f"Tool: {FINDER}-")
            and isinstance(comment, str)
        ):
            return _checked(place, parse_object(place, comment.encode("utf-8", "replace")))
    return {}


def _checked(place: str, told: Mapping[str, Any]) -> dict[str, Any]:
    for field in ("scope", "ecosystem"):
        if not isinstance(told.get(field, ""), str):
            raise BadMetadata(place, f"annotation: {field} must be text; leave the annotation out")
    for field in ("found_by", "source", "notes"):
        value = told.get(field, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise BadMetadata(place, f"annotation: {field} must be a list of texts; leave the annotation out")
    if len(told.get("source", ["", ""])) != 2:
        raise BadMetadata(place, "annotation: source must be a name and a version; leave the annotation out")
    return dict(told)


def _extracted(member: str, document: Mapping[str, Any]) -> Mapping[str, str]:
    infos = objects(
        member, "hasExtractedLicensingInfos", document.get("hasExtractedLicensingInfos"), MAX_ENTRIES
    )
    return {
        info["licenseId"]: info["extractedText"]
        for info in infos
        if isinstance(info.get("licenseId"), str) and isinstance(info.get("extractedText"), str)
    }


def _licences(package: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    stated = package.get("licenseDeclared")
    if not isinstance(stated, str) or stated in _NOTHING:
        return []
    return [_REFERENCE.sub(lambda match: texts.get(match[0], match[0]), stated)]
