"""An inventory as JSON, to leave the subprocess that took it, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from typing import Any

from controlplane.packaging.records import (
    ArtefactFacts,
    ArtefactType,
    Component,
    FileEntry,
    Inventory,
    Requirement,
    Scope,
)
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.jsontext import MAX_DOCUMENT, parse_object
from controlplane.packaging.sbom.text import shown


def inventory_to_json(inventory: Inventory) -> bytes:
    """Return an inventory as JSON; the same inventory gives the same bytes."""
    return json.dumps(asdict(inventory), sort_keys=True, default=_plain).encode()


def inventory_from_json(data: bytes, member: str = "inventory") -> Inventory:
    """Return the inventory that ``inventory_to_json`` wrote.

    Raises:
        BadMetadata: the bytes are something else.
    """
    fields = parse_object(member, data, MAX_DOCUMENT)
    try:
        return _inventory(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadMetadata(
            member, f"it is no inventory of this version: {shown(error)}; take it again"
        ) from None


def components_to_json(components: Sequence[Component]) -> bytes:
    """Return components as a list of JSON; the same components give the same bytes."""
    return json.dumps([asdict(one) for one in components], sort_keys=True, default=_plain).encode()


def components_from_json(data: bytes, member: str = "components") -> list[Component]:
    """Return the components that ``components_to_json`` wrote.

    Raises:
        BadMetadata: the bytes are something else.
    """
    if len(data) > MAX_DOCUMENT:
        raise BadMetadata(member, f"it has {len(data)} bytes, more than {MAX_DOCUMENT}; shorten it")
    try:
        return [_component(entry) for entry in json.loads(data)]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadMetadata(
            member, f"it is no list of components of this version: {shown(error)}; take the inventory again"
        ) from None


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _inventory(fields: Mapping[str, Any]) -> Inventory:
    facts = fields["facts"]
    return Inventory(
        facts=ArtefactFacts(**{**facts, "type": ArtefactType(facts["type"])}),
        sha256=fields["sha256"],
        components=[_component(entry) for entry in fields["components"]],
        files=[FileEntry(**entry) for entry in fields["files"]],
        tools=dict(fields["tools"]),
        problems=list(fields["problems"]),
    )


def _component(fields: Mapping[str, Any]) -> Component:
    requires = [Requirement(**{**entry, "scope": Scope(entry["scope"])}) for entry in fields["requires"]]
    return Component(**{**fields, "scope": Scope(fields["scope"]), "requires": requires})
