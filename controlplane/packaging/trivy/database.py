"""Trivy's database (version 2 of its schema) of what records say of the components of one scan.

Of each record only what can be said in Trivy's words goes in: pairs of a beginning and an end, in their
order, of versions that have a place in the ecosystem's order. What cannot is left out, and Trivy is not asked
about it: of a constraint with one version that it cannot read it takes nothing, and finds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from controlplane.packaging.advisories import versions
from controlplane.packaging.advisories.names import base, normalise
from controlplane.packaging.advisories.osv import COMPARED
from controlplane.packaging.advisories.records import Affected, Event
from controlplane.packaging.advisories.telling import Told
from controlplane.packaging.trivy.bolt import written

ECOSYSTEMS: Final = {"PyPI": "pip", "npm": "npm", "Go": "go", "Maven": "maven"}
"""By OSV's name, Trivy's. Distributions are not among them: it asks for the one that it runs on."""
SCHEMA: Final = 2
_EVERY: Final = ""
"""How Trivy's advisories say that every version is affected."""


def database(asked: Iterable[Told]) -> bytes:
    """Return the file ``trivy.db``."""
    sources: dict[bytes, dict[bytes, dict[bytes, bytes]]] = {}
    ids: dict[bytes, bytes] = {}
    for (ecosystem, name, record), constraints in _by_package(asked).items():
        source = f"{ECOSYSTEMS[ecosystem]}::Fleetwright".encode()
        package = sources.setdefault(source, {}).setdefault(name.encode(), {})
        package[record.encode()] = _json({"VulnerableVersions": constraints})
        ids[record.encode()] = _json({"Title": record})
    about = {name: _json({"ID": "fleetwright", "Name": "Fleetwright", "URL": ""}) for name in sources}
    return written({b"data-source": about, b"vulnerability": ids, **sources})


def _by_package(asked: Iterable[Told]) -> dict[tuple[str, str, str], list[str]]:
    """Return, by ecosystem, name and record, the constraints for all versions of the package together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for one in asked:
        for name in _names(one):
            place = base(one.component.ecosystem), name, one.record.id
            found[place] = list(dict.fromkeys([*found.get(place, ()), *(said(one) or ())]))
    return found


def metadata() -> bytes:
    """Return the file ``metadata.json`` beside it."""
    long_ago, far = "2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
    return _json({"Version": SCHEMA, "NextUpdate": far, "UpdatedAt": long_ago, "DownloadedAt": long_ago})


def said(one: Told) -> list[str] | None:
    """Return a record's ranges as Trivy's constraints; None where its words do not reach."""
    ends = [event.version for block in one.blocks for each in block.ranges for event in each.events]
    if not _comparable(one.component.ecosystem, [one.component.version, *ends]):
        return None
    found: list[str] = []
    for block in one.blocks:
        constraints = _of_block(one, block)
        if constraints is None:
            return None
        found += constraints
    return found


def _comparable(ecosystem: str, some: Iterable[str]) -> bool:
    """Return whether all of these versions are what the ecosystem's rules know, by which engines agree."""
    try:
        return all(version == "0" or versions.certain(ecosystem, version) for version in some)
    except versions.VersionError:
        return False


def _of_block(one: Told, block: Affected) -> list[str] | None:
    found: list[str] = []
    ecosystem, version = one.component.ecosystem, one.component.version
    # A version that is listed needs no comparing; others in the list are of no use here.
    if versions.spelling(ecosystem, version) in block.versions:
        found.append(f">={version}, <={version}")
    for compared in block.ranges:
        constraints = _of_events(compared.events) if compared.type in COMPARED else []
        if constraints is None:
            return None
        found += constraints
    return found


def _of_events(events: Sequence[Event]) -> list[str] | None:
    found: list[str] = []
    begun: str | None = None
    for event in events:
        if (event.kind == "introduced") != (begun is None) or event.kind == "limit":
            return None
        if event.kind == "introduced":
            begun = event.version
            continue
        end = f"{'<' if event.kind == 'fixed' else '<='}{event.version}"
        found.append(end if begun == "0" else f">={begun}, {end}")
        begun = None
    if begun is not None:
        found.append(_EVERY if begun == "0" else f">={begun}")
    return found


def _names(one: Told) -> set[str]:
    """Return the names that it may ask for."""
    name, ecosystem = one.component.name, one.component.ecosystem
    if base(ecosystem) == "PyPI":
        # It takes "_" for "-", as PEP 426 did, and leaves "." alone.
        return {normalise(ecosystem, name), name.lower().replace("_", "-")}
    return {normalise(ecosystem, name) if base(ecosystem) == "Maven" else name}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
