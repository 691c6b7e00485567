"""Packages, their attestations, components and findings: reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.filtering import (
    BoundFilter,
    EnumField,
    FilterSchema,
    IntegerField,
    NamesField,
    TextField,
    TimestampField,
)
from controlplane.packaging.forms import finding_of
from controlplane.packaging.records import Component, Finding, Scope
from controlplane.packaging.rules import Decision
from controlplane.packaging.store.pipelines import Counts
from controlplane.packaging.store.tables import (
    package_attestations,
    package_components,
    package_findings,
    package_vulnerabilities,
    packages,
    pipelines,
)
from controlplane.storage.filters import NameTable, compile_filter
from controlplane.storage.unit_of_work import UnitOfWork

FILTER = FilterSchema(
    {
        "package_name": TextField(),
        "version": TextField(),
        "artefact_type": TextField(),
        "target_platform": TextField(),
        "channel": TextField(),
        "decision": EnumField(
            {decision.name: int(decision) for decision in Decision}, prefix="POLICY_DECISION_"
        ),
        "critical": IntegerField(),
        "high": IntegerField(),
        "medium": IntegerField(),
        "low": IntegerField(),
        "unknown": IntegerField(),
        "vulnerability": NamesField(),
        "component": NamesField(),
        "create_time": TimestampField(),
    }
)
"""What a filter over packages may name: ``vulnerability`` is any id of one, ``component`` a package URL."""

_NAMES = {
    "vulnerability": NameTable(
        listed=packages.c.sha256,
        owner=package_vulnerabilities.c.package,
        name=package_vulnerabilities.c.vulnerability,
    ),
    "component": NameTable(
        listed=packages.c.sha256, owner=package_components.c.package, name=package_components.c.purl
    ),
}
_COLUMNS = {name: packages.c[name] for name in FILTER.fields if name not in _NAMES}
_COUNTS = ("critical", "high", "medium", "low", "unknown")
_JSON = ("decision_reasons", "facts", "scan")
NOT_LISTED = ("openpgp",)
"""Kinds that stand among the attestations and are none."""


@dataclass(frozen=True, slots=True)
class PackageRecord:
    """A package, with the decision that stands.

    ``facts`` and ``scan`` are JSON that ``judging`` knows; ``judgement`` grows with each decision and with
    whatever may change one; at ``due_time`` it is judged again, and from ``verdict_expire_time`` on no agent
    accepts the verdict.
    """

    sha256: str
    package_name: str
    version: str
    artefact_type: str
    target_platform: str
    size: int
    pipeline_id: str
    decision: Decision
    decision_time: int
    decision_reasons: Sequence[str]
    counts: Counts | None
    component_count: int
    file_count: int
    claimed_file_count: int
    create_time: int
    purl: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    scan: Mapping[str, Any] = field(default_factory=dict)
    known: str = ""
    policy: str = ""
    judgement: int = 0
    due_time: int = 0
    verdict_expire_time: int = 0
    channel: str = ""
    target_path: str = ""


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """A finding of a package; ``place`` counts from 1, the most severe first."""

    place: int
    finding: Finding
    exception_id: str


def _package(row: Row[Any]) -> PackageRecord:
    values = {name: getattr(row, name) for name in PackageRecord.__slots__ if name != "counts"}
    values |= {name: json.loads(values[name]) for name in _JSON}
    counts = None if row.critical is None else tuple(getattr(row, name) for name in _COUNTS)
    return PackageRecord(**{**values, "counts": counts, "decision": Decision(row.decision)})


async def find(connection: AsyncConnection, sha256: str, *, lock: bool = False) -> PackageRecord | None:
    """Return a package, or None; with ``lock`` nobody else changes it until the transaction ends."""
    statement = select(packages).where(packages.c.sha256 == sha256)
    if lock:
        # SQLite, which knows no such thing, writes one transaction at a time.
        statement = statement.with_for_update()
    row = (await connection.execute(statement)).first()
    return _package(row) if row else None


def condition(chosen: BoundFilter) -> ColumnElement[bool]:
    """Return the condition of a filter over packages."""
    return compile_filter(chosen, _COLUMNS, names=_NAMES)


async def page(
    connection: AsyncConnection, chosen: BoundFilter, before: tuple[int, str] | None, limit: int
) -> list[PackageRecord]:
    """Return packages that match, newest first, after the place ``before``: (create_time, sha256)."""
    table = packages.c
    statement = select(packages).where(condition(chosen))
    if before is not None:
        created, sha256 = before
        later = and_(table.create_time == created, table.sha256 < sha256)
        statement = statement.where(or_(table.create_time < created, later))
    ordered = statement.order_by(table.create_time.desc(), table.sha256.desc()).limit(limit)
    return [_package(row) for row in await connection.execute(ordered)]


async def count(connection: AsyncConnection, chosen: BoundFilter) -> int:
    """Return how many packages match."""
    statement = select(func.count()).select_from(packages).where(condition(chosen))
    return int((await connection.execute(statement)).scalar_one())


async def attestations(connection: AsyncConnection, sha256s: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the attestations of packages by kind, each with the SHA-256 of its envelope."""
    table = package_attestations.c
    rows = await connection.execute(
        select(table.package, table.kind, table.sha256)
        .where(table.package.in_(sha256s), table.kind.not_in(NOT_LISTED))
        .order_by(table.package, table.kind)
    )
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row.package, {})[row.kind] = row.sha256
    return found


async def envelope(connection: AsyncConnection, sha256: str, kind: str) -> bytes | None:
    """Return the envelope of an attestation that stands, or None."""
    table = package_attestations.c
    statement = select(table.envelope).where(table.package == sha256, table.kind == kind)
    found = (await connection.execute(statement)).scalar()
    return None if found is None else bytes(found)


async def components(connection: AsyncConnection, sha256: str) -> list[Component]:
    """Return the components of a package as a scan needs them, by package URL: without their files."""
    table = package_components.c
    rows = await connection.execute(
        select(package_components).where(table.package == sha256).order_by(table.purl)
    )
    return [
        Component(
            row.ecosystem,
            row.name,
            row.version,
            row.purl,
            found_by=tuple(json.loads(row.found_by)),
            scope=Scope(row.scope),
        )
        for row in rows
    ]


async def findings(
    connection: AsyncConnection, sha256: str, after: int = 0, limit: int | None = None
) -> list[FindingRecord]:
    """Return findings of a package behind a place, the most severe first; ``limit`` None for all."""
    table = package_findings.c
    statement = select(package_findings).where(table.package == sha256, table.place > after)
    rows = await connection.execute(statement.order_by(table.place).limit(limit))
    return [FindingRecord(row.place, finding_of(json.loads(row.finding)), row.exception_id) for row in rows]


async def count_findings(connection: AsyncConnection, sha256: str) -> int:
    """Return how many findings a package has."""
    statement = select(func.count()).where(package_findings.c.package == sha256)
    return int((await connection.execute(statement.select_from(package_findings))).scalar_one())


async def vex_of(connection: AsyncConnection, sha256: str) -> str:
    """Return the OpenVEX document that was given with the pipeline of a package; empty for none."""
    statement = (
        select(pipelines.c.vex)
        .join(packages, packages.c.pipeline_id == pipelines.c.pipeline_id)
        .where(packages.c.sha256 == sha256)
    )
    return str((await connection.execute(statement)).scalar() or "")


async def due(
    connection: AsyncConnection, known: str, policy: str, now: int, after: str, limit: int
) -> list[str]:
    """Return packages behind the digest ``after``, in their order, that must be judged again.

    They were looked at by other advisories or another policy, or their time has come.
    """
    table = packages.c
    stale = or_(table.known != known, table.policy != policy, table.due_time <= now)
    statement = select(table.sha256).where(table.sha256 > after, stale).order_by(table.sha256)
    return [row.sha256 for row in await connection.execute(statement.limit(limit))]


async def mark(work: UnitOfWork, sha256: str) -> None:
    """Have a package judged again: what it stands on has changed. Who looked before commits nothing."""
    table = packages.c
    statement = update(packages).where(table.sha256 == sha256)
    await work.connection.execute(statement.values(judgement=table.judgement + 1, due_time=0))
