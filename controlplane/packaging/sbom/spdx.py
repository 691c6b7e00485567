"""SPDX 2.3, as JSON, from an inventory. The same inventory and time give the same bytes.

Rules of the specification that shape it: identifiers are "SPDXRef-" and letters, digits, "." and "-" (clause
7.2); every file has a SHA-1 (8.4); a package whose files were analysed has a verification code over them
(7.9), and one whose files were not contains none (7.8); licences that SPDX does not list are extracted texts
with a "LicenseRef-" (10.1); the data itself is CC0-1.0 (6.2).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.packaging.records import Component, FileEntry, Inventory, Requirement, Scope
from controlplane.packaging.sbom.cyclonedx import document_uuid, encoded, subject_name, timestamp
from controlplane.packaging.sbom.found import FINDER
from controlplane.packaging.sbom.licences import spdx_expression
from controlplane.packaging.sbom.text import documented
from controlplane.packaging.sbom.tools import own_version, ran

SUBJECT = "SPDXRef-Subject"
_DOCUMENT = "SPDXRef-DOCUMENT"
_UNKNOWN = "NOASSERTION"
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9.-]+")
_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_DIGITS = 32


def spdx(inventory: Inventory, source_date_epoch: int) -> bytes:
    """Return the document; ``source_date_epoch`` is its time, in seconds since 1970, UTC."""
    created = timestamp(source_date_epoch)
    files = _analysed(inventory)
    licences = _extracted(inventory.components)
    document: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": subject_name(inventory),
        "creationInfo": {"created": created, "creators": _creators(inventory)},
        "packages": [
            _subject(inventory, files),
            *(_package(component, files, created) for component in inventory.components),
        ],
        "files": [_file(entry) for entry in files.values()],
        "relationships": [*_relationships(inventory), *_contained_files(inventory, files)],
    }
    if licences:
        document["hasExtractedLicensingInfos"] = licences
    name = _NOT_IN_NAME.sub("-", subject_name(inventory))
    document["documentNamespace"] = (
        f"https://spdx.org/spdxdocs/fleetwright-{name}-{document_uuid(inventory, document)}"
    )
    return encoded(document)


def package_id(purl: str) -> str:
    """Return the identifier of a component within a document."""
    return f"SPDXRef-Package-{_digest(purl)}"


def _creators(inventory: Inventory) -> list[str]:
    return [f"Tool: {tool}-{version}" for tool, version in ran(inventory.tools)] or [f"Tool: {FINDER}"]


def _analysed(inventory: Inventory) -> Mapping[str, FileEntry]:
    """Return the files by path; none where one has no SHA-1, for then no file may be listed."""
    regular = [entry for entry in inventory.files if not entry.link_target]
    if not all(entry.sha1 for entry in regular):
        return {}
    return {entry.path: entry for entry in sorted(regular, key=lambda entry: entry.path)}


def _subject(inventory: Inventory, files: Mapping[str, FileEntry]) -> dict[str, Any]:
    described = {
        "SPDXID": SUBJECT,
        "name": subject_name(inventory),
        "downloadLocation": _UNKNOWN,
        "checksums": [{"algorithm": "SHA256", "checksumValue": inventory.sha256}],
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
        **_verified(list(files.values())),
    }
    if inventory.facts.version:
        described["versionInfo"] = documented(inventory.facts.version)
    return described


def _package(component: Component, files: Mapping[str, FileEntry], created: str) -> dict[str, Any]:
    described = {
        "SPDXID": package_id(component.purl),
        "name": component.name,
        "downloadLocation": _UNKNOWN,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _declared(component.licences),
        "copyrightText": _UNKNOWN,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.purl,
            }
        ],
        "annotations": [
            {
                "annotationDate": created,
                "annotationType": "OTHER",
                "annotator": f"Tool: {FINDER}-{own_version()}",
                "comment": json.dumps(_told(component), sort_keys=True, ensure_ascii=False),
            }
        ],
        **_verified(_files_of(component, files)),
    }
    if component.version:
        described["versionInfo"] = component.version
    return described


def _told(component: Component) -> dict[str, Any]:
    """Return what SPDX has no field for, as ``documents.components_of`` reads it back."""
    told = {
        "ecosystem": component.ecosystem,
        "scope": component.scope.value,
        "found_by": list(component.found_by),
        "source": [component.source_name, component.source_version],
        "notes": [documented(note) for note in component.notes],
    }
    return {key: value for key, value in told.items() if value not in ([], ["", ""])}


def _verified(entries: Sequence[FileEntry]) -> dict[str, Any]:
    if not entries:
        return {"filesAnalyzed": False}
    # Clause 7.9: the digests in hexadecimal, sorted, joined without anything between, digested again.
    joined = "".join(sorted(entry.sha1 for entry in entries)).encode()
    code = hashlib.sha1(joined, usedforsecurity=False).hexdigest()
    return {"filesAnalyzed": True, "packageVerificationCode": {"packageVerificationCodeValue": code}}


def _files_of(component: Component, files: Mapping[str, FileEntry]) -> list[FileEntry]:
    if component.scope is not Scope.CONTAINED:
        return []
    return [files[path] for path in component.files if path in files]


def _file(entry: FileEntry) -> dict[str, Any]:
    return {
        "SPDXID": _file_id(entry),
        "fileName": f"./{documented(entry.path)}",
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": entry.sha1},
            {"algorithm": "SHA256", "checksumValue": entry.sha256},
        ],
        "licenseConcluded": _UNKNOWN,
        "licenseInfoInFiles": [_UNKNOWN],
        "copyrightText": _UNKNOWN,
    }


def _relationships(inventory: Inventory) -> Iterable[dict[str, str]]:
    yield _related(_DOCUMENT, "DESCRIBES", SUBJECT)
    known = {component.purl for component in inventory.components}
    for component in inventory.components:
        own = package_id(component.purl)
        yield _of_scope(SUBJECT, component.scope, own)
        for requirement in component.requires:
            yield _required(own, requirement, known)


def _required(own: str, requirement: Requirement, known: set[str]) -> dict[str, str]:
    if requirement.purl in known:
        return _of_scope(
            own,
            Scope.REQUIRED if requirement.scope is Scope.CONTAINED else requirement.scope,
            package_id(requirement.purl),
        )
    words = " ".join(filter(None, (requirement.name, documented(requirement.constraint))))
    return {**_related(own, "DEPENDS_ON", _UNKNOWN), "comment": f"{requirement.scope.value}: {words}"}


def _of_scope(one: str, scope: Scope, other: str) -> dict[str, str]:
    if scope is Scope.CONTAINED:
        return _related(one, "CONTAINS", other)
    if scope is Scope.REQUIRED:
        return _related(one, "DEPENDS_ON", other)
    return _related(other, "OPTIONAL_DEPENDENCY_OF" if scope is Scope.OPTIONAL else "DEV_DEPENDENCY_OF", one)


def _contained_files(inventory: Inventory, files: Mapping[str, FileEntry]) -> Iterable[dict[str, str]]:
    yield from (_related(SUBJECT, "CONTAINS", _file_id(entry)) for entry in files.values())
    for component in inventory.components:
        own = package_id(component.purl)
        yield from (_related(own, "CONTAINS", _file_id(entry)) for entry in _files_of(component, files))


def _related(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _declared(licences: Sequence[str]) -> str:
    parts = [spdx_expression(licence) or _reference(licence) for licence in licences]
    if len(parts) <= 1:
        return parts[0] if parts else _UNKNOWN
    # Several licences of which nobody says how they go together: all of them may apply.
    return " AND ".join(f"({part})" if " " in part else part for part in dict.fromkeys(parts))


def _extracted(components: Iterable[Component]) -> list[dict[str, str]]:
    own_words = {
        licence
        for component in components
        for licence in component.licences
        if not spdx_expression(licence) or "LicenseRef-" in spdx_expression(licence)
    }
    infos: dict[str, str] = {}
    for licence in sorted(own_words):
        if expression := spdx_expression(licence):
            infos |= dict.fromkeys(re.findall(r"LicenseRef-[A-Za-z0-9.-]+", expression), licence)
        else:
            infos[_reference(licence)] = licence
    return [{"licenseId": key, "extractedText": infos[key], "name": infos[key]} for key in sorted(infos)]


def _reference(licence: str) -> str:
    return f"LicenseRef-{_digest(licence)}"


def _file_id(entry: FileEntry) -> str:
    return f"SPDXRef-File-{_digest(entry.path)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_DIGITS]
