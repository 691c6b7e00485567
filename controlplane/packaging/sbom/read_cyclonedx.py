"""CycloneDX, read: what ``cyclonedx.py`` wrote, and what syft, Trivy and others write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.packaging.records import Component, Requirement, Scope
from controlplane.packaging.sbom.cyclonedx import PREFIX
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.jsontext import mapping, objects, parse_object
from controlplane.packaging.sbom.read_component import listed, scope_of
from controlplane.packaging.sbom.text import clean, shown

MAX_COMPONENTS = 200_000
"""Components of one document, files among them."""

MAX_DEPTH = 50
"""Components within components."""

_NO_SOFTWARE = frozenset({"file", "operating-system", "container", "data", "device", "cryptographic-asset"})
_SCOPES = {"required": Scope.CONTAINED, "optional": Scope.OPTIONAL, "excluded": Scope.DEVELOPMENT}
_LOCATION = re.compile(r"syft:location:[0-9]+:path|aquasecurity:trivy:FilePath")


def cyclonedx_components(member: str, document: Mapping[str, Any]) -> Iterator[Component]:
    """Yield every piece of software of a document, its subject too where that has a package URL.

    Raises:
        BadMetadata: a field has another type than the schema gives it, or a limit is passed.
    """
    metadata = mapping(member, "metadata", document.get("metadata"))
    subject = mapping(member, "metadata.component", metadata.get("component"))
    if subject.get("purl"):
        yield _component(f"{member}: metadata.component", subject)
    for number, (place, entry) in enumerate(_walk(member, document)):
        if number >= MAX_COMPONENTS:
            raise BadMetadata(member, f"it lists more than {MAX_COMPONENTS} components; split it")
        if entry.get("purl") or _is_software(entry):
            yield _component(place, entry)


def _is_software(entry: Mapping[str, Any]) -> bool:
    # Trivy lists lock files as applications without a version; those are files.
    return str(entry.get("type")) not in _NO_SOFTWARE and bool(entry.get("version"))


def _walk(member: str, document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    waiting = [(f"{member}: components", document.get("components"), 1)]
    while waiting:
        place, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise BadMetadata(member, f"its components are nested more than {MAX_DEPTH} deep; flatten it")
        for index, entry in enumerate(objects(member, "components", value, MAX_COMPONENTS)):
            yield f"{place}[{index}]", entry
            if entry.get("components"):
                waiting.append((f"{place}[{index}].components", entry["components"], depth + 1))


def _component(place: str, entry: Mapping[str, Any]) -> Component:
    told = _properties(place, entry)
    group = clean(place, "group", entry.get("group") or "")
    name = clean(place, "name", entry.get("name") or "")
    return listed(
        place,
        purl=entry.get("purl") or "",
        name=f"{group}/{name}" if group else name,
        version=entry.get("version") or "",
        files=_files(place, entry),
        licences=list(_licences(place, entry)),
        scope=scope_of(place, told["scope"][0]) if "scope" in told else _scope(place, entry),
        ecosystem=_first(told, "ecosystem"),
        found_by=told.get("found-by", ()),
        requires=[_requirement(place, text) for text in told.get("requires", ())],
        source=(_first(told, "source-name"), _first(told, "source-version")),
        notes=told.get("note", ()),
    )


def _first(told: Mapping[str, Sequence[str]], name: str) -> str:
    return (told.get(name) or ("",))[0]


def _properties(place: str, entry: Mapping[str, Any]) -> Mapping[str, list[str]]:
    told: dict[str, list[str]] = {}
    for one in objects(place, "properties", entry.get("properties"), MAX_COMPONENTS):
        name, value = one.get("name"), one.get("value")
        if isinstance(name, str) and isinstance(value, str) and name.startswith(PREFIX):
            told.setdefault(name.removeprefix(PREFIX), []).append(value)
    return told


def _scope(place: str, entry: Mapping[str, Any]) -> Scope:
    stated = entry.get("scope") or "required"
    if not isinstance(stated, str) or stated not in _SCOPES:
        raise BadMetadata(place, f"scope {shown(stated)!r} is none of {', '.join(_SCOPES)}; correct it")
    return _SCOPES[stated]


def _requirement(place: str, text: str) -> Requirement:
    parts = parse_object(place, b'{"parts":' + text.encode("utf-8", "replace") + b"}").get("parts")
    if not isinstance(parts, list) or len(parts) != 4 or not all(isinstance(part, str) for part in parts):
        raise BadMetadata(place, f"property {PREFIX}requires must be a list of four texts; leave it out")
    name, constraint, scope, purl = parts
    return Requirement(name, constraint, scope_of(place, scope), purl)


def _files(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    evidence = mapping(place, "evidence", entry.get("evidence"))
    for occurrence in objects(place, "evidence.occurrences", evidence.get("occurrences"), MAX_COMPONENTS):
        if isinstance(location := occurrence.get("location"), str):
            yield location
    for one in objects(place, "properties", entry.get("properties"), MAX_COMPONENTS):
        name, value = one.get("name"), one.get("value")
        if isinstance(name, str) and isinstance(value, str) and _LOCATION.fullmatch(name):
            # Other tools write paths from the root of what they looked at.
            yield value.lstrip("/")


def _licences(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for choice in objects(place, "licenses", entry.get("licenses"), 1_000):
        licence = mapping(place, "licenses[].license", choice.get("license"))
        for words in (choice.get("expression"), licence.get("id"), licence.get("name")):
            if isinstance(words, str) and words:
                yield words
                break
