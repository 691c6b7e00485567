"""CycloneDX 1.6, as JSON, from an inventory. The same inventory and time give the same bytes.

The subject (``metadata.component``) is the file that was examined, with its digest. Components are what was
found, and files, with their digests. Where a component's files lie is its evidence; its scope, finders and
what could not be found out are properties of the name ``fleetwright:…``, so that ``documents.components_of``
reads back what was written.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from controlplane.packaging.records import ArtefactType, Component, FileEntry, Inventory, Scope
from controlplane.packaging.sbom.coverage import coverage_of
from controlplane.packaging.sbom.licences import spdx_expression
from controlplane.packaging.sbom.text import documented
from controlplane.packaging.sbom.tools import NOT_RUN, ran

PREFIX = "fleetwright:"
"""Of the names of our properties, by the rules of CycloneDX's property taxonomy."""

NAMESPACE = uuid.UUID("6f2d2f0c-5a0e-5b7e-9d0a-3f1a2c0b7c55")
"""Of the identifiers of documents; made once, and never changed."""

SUBJECT = "subject"
_SCOPES = {
    Scope.CONTAINED: "required",
    Scope.REQUIRED: "required",
    Scope.OPTIONAL: "optional",
    Scope.DEVELOPMENT: "excluded",
}
_APPLICATIONS = {ArtefactType.BINARY, ArtefactType.DEB, ArtefactType.ARCHIVE}


def cyclonedx(inventory: Inventory, source_date_epoch: int) -> bytes:
    """Return the document; ``source_date_epoch`` is its time, in seconds since 1970, UTC."""
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _metadata(inventory, source_date_epoch),
        "components": [*map(_component, inventory.components), *map(_file, inventory.files)],
        "dependencies": _dependencies(inventory),
        # Nobody can know that nothing was overlooked.
        "compositions": [{"aggregate": "unknown", "assemblies": [SUBJECT]}],
    }
    document["serialNumber"] = f"urn:uuid:{document_uuid(inventory, document)}"
    return encoded(document)


def document_uuid(inventory: Inventory, document: Mapping[str, Any]) -> uuid.UUID:
    """Return an identifier that follows from the subject's digest and the content of the document."""
    content = hashlib.sha256(encoded(document)).hexdigest()
    return uuid.uuid5(NAMESPACE, f"{inventory.sha256}:{content}")


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON: keys sorted, no white space, one line feed at the end."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def timestamp(source_date_epoch: int) -> str:
    """Return seconds since 1970 as both formats want times: "2026-01-31T12:00:00Z"."""
    return datetime.fromtimestamp(source_date_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def subject_name(inventory: Inventory) -> str:
    """Return the artefact's name; its digest where it says none."""
    return documented(inventory.facts.name) or f"sha256:{inventory.sha256}"


def _metadata(inventory: Inventory, source_date_epoch: int) -> dict[str, Any]:
    facts, coverage = inventory.facts, coverage_of(inventory)
    subject = {
        "type": "application" if facts.type in _APPLICATIONS else "library",
        "bom-ref": SUBJECT,
        "name": subject_name(inventory),
        "version": documented(facts.version),
        "hashes": [{"alg": "SHA-256", "content": inventory.sha256}],
        "properties": _properties(
            [
                ("artefact-type", facts.type.value),
                ("architecture", documented(facts.architecture)),
                ("os-family", documented(facts.os_family)),
                *((f"detail:{documented(key)}", documented(value)) for key, value in facts.details.items()),
            ]
        ),
    }
    notes = [
        ("files", str(coverage.files)),
        ("files-claimed", str(coverage.claimed)),
        *(
            (f"tool:{tool}", said)
            for tool, said in sorted(inventory.tools.items())
            if said.startswith(NOT_RUN)
        ),
        *(("problem", documented(problem)) for problem in inventory.problems),
    ]
    return {
        "timestamp": timestamp(source_date_epoch),
        "tools": {"components": [_tool(*tool) for tool in ran(inventory.tools)]},
        "component": _without_empty(subject),
        "properties": _properties(notes),
    }


def _tool(name: str, version: str) -> dict[str, str]:
    return {"type": "application", "name": name, "version": version}


def _component(component: Component) -> dict[str, Any]:
    group, name = _group(component)
    return _without_empty(
        {
            "type": "library",
            "bom-ref": component.purl,
            "group": group,
            "name": name,
            "version": component.version,
            "purl": component.purl,
            "scope": _SCOPES[component.scope],
            "licenses": _licences(component.licences),
            "evidence": {"occurrences": [{"location": documented(path)} for path in component.files]}
            if component.files
            else {},
            "properties": _properties(_told(component)),
        }
    )


def _group(component: Component) -> tuple[str, str]:
    if component.purl.startswith("pkg:maven/") and ":" in component.name:
        group, _, name = component.name.partition(":")
        return group, name
    if component.purl.startswith("pkg:npm/") and "/" in component.name:
        group, _, name = component.name.partition("/")
        return group, name
    return "", component.name


def _told(component: Component) -> Iterable[tuple[str, str]]:
    yield "ecosystem", component.ecosystem
    yield "scope", component.scope.value
    yield from (("found-by", finder) for finder in component.found_by)
    yield "source-name", component.source_name
    yield "source-version", component.source_version
    yield from (("note", documented(note)) for note in component.notes)
    for requirement in component.requires:
        parts = [requirement.name, requirement.constraint, requirement.scope.value, requirement.purl]
        yield "requires", json.dumps(parts, ensure_ascii=False)


def _licences(licences: Sequence[str]) -> list[dict[str, Any]]:
    # An expression stands alone by the schema; several licences without an operator between them are names.
    if len(licences) == 1 and (expression := spdx_expression(licences[0])):
        return [{"expression": expression}]
    return [{"license": {"name": licence}} for licence in licences]


def _file(entry: FileEntry) -> dict[str, Any]:
    path = documented(entry.path)
    described: dict[str, Any] = {"type": "file", "bom-ref": f"file:{path}", "name": path}
    if entry.link_target:
        described["properties"] = _properties([("link-target", documented(entry.link_target))])
    else:
        described["hashes"] = [{"alg": "SHA-256", "content": entry.sha256}]
    return described


def _dependencies(inventory: Inventory) -> list[dict[str, Any]]:
    known = {component.purl for component in inventory.components}
    needed = {component.purl: _needs(component, known) for component in inventory.components}
    needed[SUBJECT] = sorted(known)
    return [{"ref": ref, "dependsOn": needed[ref]} for ref in sorted(needed) if needed[ref]]


def _needs(component: Component, known: set[str]) -> list[str]:
    return sorted({requirement.purl for requirement in component.requires} & known - {component.purl})


def _properties(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": PREFIX + name, "value": value} for name, value in pairs if value]


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in ("", [], {})}
