"""Decisions on packages: written whole, and only by who has seen the last one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Table, delete, insert, update

from controlplane.packaging.forms import plain
from controlplane.packaging.records import Component, Finding
from controlplane.packaging.store.packages import PackageRecord
from controlplane.packaging.store.tables import (
    package_attestations,
    package_components,
    package_findings,
    package_vulnerabilities,
    packages,
)
from controlplane.storage.backends import insert_into
from controlplane.storage.unit_of_work import UnitOfWork

MOST_ID = 512
"""Characters of an id that packages are found by; longer ones stand in the finding alone."""
_ROWS = 500
"""Rows in one statement."""
_COUNTS = ("critical", "high", "medium", "low", "unknown")
_JSON = ("decision_reasons", "facts", "scan")
_OF_STORE = ("channel", "target_path")
"""Columns that releasing writes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attested:
    """An envelope of one kind: "provenance", "sbom", "scan", "verdict"."""

    kind: str
    sha256: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class NewDecision:
    """A decision with what it stands on. None for what stays as it is."""

    package: PackageRecord
    attestations: Sequence[Attested] = ()
    components: Sequence[Component] | None = None
    findings: Sequence[Finding] | None = None
    """The most severe first."""
    lifted: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The exception by which a finding does not block: by component and vulnerability."""


async def write(work: UnitOfWork, new: NewDecision, seen: int | None) -> bool:
    """Write a decision behind the judgement ``seen`` of the one before, or as the first one (None).

    Returns False, and writes nothing, where there is another one by now.
    """
    if not await (_insert(work, new.package) if seen is None else _update(work, new.package, seen)):
        return False
    sha256, now = new.package.sha256, new.package.decision_time
    for one in new.attestations:
        await _attest(work, sha256, one, now)
    if new.components is not None:
        await _replace(work, package_components, sha256, [_component(one) for one in new.components])
    if new.findings is not None:
        rows = [_finding(one, place, new.lifted) for place, one in enumerate(new.findings, 1)]
        ids = {name for one in new.findings for name in (one.vulnerability, *one.aliases)}
        names = [{"vulnerability": one} for one in sorted(ids) if len(one) <= MOST_ID]
        await _replace(work, package_findings, sha256, rows)
        await _replace(work, package_vulnerabilities, sha256, names)
    return True


async def touch(work: UnitOfWork, sha256: str, seen: int, *, known: str, policy: str, due_time: int) -> bool:
    """Note that a package was looked at again and nothing has changed; False where something has since."""
    table = packages.c
    statement = update(packages).where(table.sha256 == sha256, table.judgement == seen)
    values = {"known": known, "policy": policy, "due_time": due_time}
    return (await work.connection.execute(statement.values(values))).rowcount == 1


def _values(package: PackageRecord) -> dict[str, Any]:
    values = {name: getattr(package, name) for name in PackageRecord.__slots__}
    counts = values.pop("counts")
    values |= dict(zip(_COUNTS, counts or (None,) * len(_COUNTS), strict=True))
    values |= {name: json.dumps(values[name], separators=(",", ":"), sort_keys=True) for name in _JSON}
    return {**values, "decision": int(package.decision)}


async def _insert(work: UnitOfWork, package: PackageRecord) -> bool:
    fresh = insert_into(work.connection, packages).values({**_values(package), "judgement": 1})
    # Not every driver counts the rows of an insert.
    inserted = fresh.on_conflict_do_nothing().returning(packages.c.sha256)
    return (await work.connection.execute(inserted)).first() is not None


async def _update(work: UnitOfWork, package: PackageRecord, seen: int) -> bool:
    table = packages.c
    values = {name: value for name, value in _values(package).items() if name not in _OF_STORE}
    values |= {"judgement": seen + 1}
    for kept in ("sha256", "create_time"):
        del values[kept]
    statement = update(packages).where(table.sha256 == package.sha256, table.judgement == seen)
    return (await work.connection.execute(statement.values(values))).rowcount == 1


async def _attest(work: UnitOfWork, package: str, one: Attested, now: int) -> None:
    row = {
        "package": package,
        "kind": one.kind,
        "sha256": one.sha256,
        "envelope": one.envelope,
        "create_time": now,
    }
    statement = insert_into(work.connection, package_attestations).values(row)
    changed = {name: statement.excluded[name] for name in ("sha256", "envelope", "create_time")}
    await work.connection.execute(
        statement.on_conflict_do_update(index_elements=["package", "kind"], set_=changed)
    )


async def _replace(work: UnitOfWork, table: Table, package: str, rows: Sequence[Mapping[str, Any]]) -> None:
    await work.connection.execute(delete(table).where(table.c.package == package))
    for part in _parts(rows):
        await work.connection.execute(insert(table), [{"package": package, **row} for row in part])


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))


def _component(one: Component) -> dict[str, Any]:
    return {
        "purl": one.purl,
        "ecosystem": one.ecosystem,
        "name": one.name,
        "version": one.version,
        "scope": one.scope.value,
        "found_by": json.dumps(list(one.found_by)),
    }


def _finding(one: Finding, place: int, lifted: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    return {
        "place": place,
        "severity": one.severity.value,
        "state": one.state,
        "exception_id": lifted.get((one.component, one.vulnerability), ""),
        "finding": json.dumps(plain(one), separators=(",", ":"), sort_keys=True),
    }
