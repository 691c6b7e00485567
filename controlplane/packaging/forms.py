"""Components and findings as JSON, in which stages hand them on and the store keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from enum import Enum
from typing import Any, Final

from controlplane.packaging.records import (
    ArtefactFacts,
    ArtefactType,
    Component,
    Finding,
    Requirement,
    Scope,
    Severity,
)

MOST_BYTES: Final = 256 * 1024 * 1024
"""Of one list; a hundred thousand components take a tenth of it."""

_WORST_FIRST: Final = {severity: place for place, severity in enumerate(Severity)}


class FormError(ValueError):
    """Bytes that a stage handed on are not what it says that they are."""


def components_to_json(components: Iterable[Component]) -> bytes:
    """Return a list of components as JSON; the same list gives the same bytes."""
    return _written([asdict(one) for one in components])


def components_from_json(data: bytes) -> list[Component]:
    """Return what ``components_to_json`` wrote. Raises ``FormError``."""
    return [_component(one) for one in _list_of(data, "components")]


def findings_to_json(findings: Iterable[Finding]) -> bytes:
    """Return a list of findings as JSON; the same list gives the same bytes."""
    return _written([asdict(one) for one in findings])


def findings_from_json(data: bytes) -> list[Finding]:
    """Return what ``findings_to_json`` wrote. Raises ``FormError``."""
    return [finding_of(one) for one in _list_of(data, "findings")]


def finding_of(entry: Mapping[str, Any]) -> Finding:
    """Return the finding that an object of JSON is. Raises ``FormError``."""
    try:
        return Finding(**{**_tuples(Finding, entry), "severity": Severity(entry["severity"])})
    except (KeyError, TypeError, ValueError) as error:
        raise FormError(f"findings: an entry is no finding of this version ({error})") from None


def facts_of(entry: Mapping[str, Any]) -> ArtefactFacts:
    """Return the facts that an object of JSON is. Raises ``FormError``."""
    try:
        return ArtefactFacts(**{**entry, "type": ArtefactType(entry["type"])})
    except (KeyError, TypeError, ValueError) as error:
        raise FormError(f"facts: these are no facts of this version ({error})") from None


def plain(value: Any) -> dict[str, Any]:
    """Return a dataclass as an object of JSON."""
    found: dict[str, Any] = json.loads(_written(asdict(value)))
    return found


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by severity, then by score, vulnerability and component."""
    return sorted(
        findings,
        key=lambda one: (_WORST_FIRST[one.severity], -(one.score or 0.0), one.vulnerability, one.component),
    )


def _component(entry: Mapping[str, Any]) -> Component:
    try:
        requires = tuple(
            Requirement(**{**one, "scope": Scope(one["scope"])}) for one in entry.get("requires", ())
        )
        scope = Scope(entry.get("scope", Scope.CONTAINED.value))
        return Component(**{**_tuples(Component, entry), "scope": scope, "requires": requires})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormError(f"components: an entry is no component of this version ({error})") from None


def _tuples(kind: type, entry: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(entry) - known):
        raise ValueError(f"unknown field {unknown[0]!r}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def _list_of(data: bytes, what: str) -> Sequence[Mapping[str, Any]]:
    if len(data) > MOST_BYTES:
        raise FormError(f"{what}: {len(data)} bytes, and at most {MOST_BYTES} are read")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormError(f"{what}: this is no JSON: {str(error)[:200]}") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise FormError(f"{what}: a list of objects is expected")
    return found


def _written(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain).encode()


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no form in JSON")
