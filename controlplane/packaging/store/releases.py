"""What was decided on packages, beside what is released of them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.packaging.rules import Decision, PipelineState, Stage
from controlplane.packaging.store.metadata import RELEASING, TargetRecord, targets_of
from controlplane.packaging.store.tables import (
    package_attestations,
    packages,
    pipeline_stages,
    pipelines,
    tuf_targets,
)
from controlplane.storage.unit_of_work import UnitOfWork

EVIDENCE_KINDS = ("provenance", "sbom", "sbom.cyclonedx", "sbom.spdx", "scan", "verdict")
"""The kinds of attestations that are released with a package, in the order of their lines."""

_ENDED = (int(PipelineState.PASSED), int(PipelineState.EXCEPTED), int(PipelineState.REFUSED))
"""Pipelines that ended after policy had judged. Of one that runs, the last stage releases the package."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A channel that a pipeline released, or would have released, a package to, and its file's name."""

    channel: str
    file_name: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A package as it stands: what was decided on it, and what is released of it.

    ``channel`` and ``target_path`` are those that it is shown with; ``evidence`` are the digests of its
    attestations by kind, in the order of ``EVIDENCE_KINDS``.
    """

    sha256: str
    name: str
    size: int
    decision: Decision
    channel: str
    target_path: str
    wanted: tuple[Wanted, ...]
    evidence: tuple[tuple[str, str], ...]
    targets: tuple[TargetRecord, ...] = field(default=())

    @property
    def live(self) -> tuple[TargetRecord, ...]:
        """What is released of it now."""
        return tuple(target for target in self.targets if target.live)


async def find(connection: AsyncConnection, sha256: str, *, lock: bool = False) -> Candidate | None:
    """Return a package, or None; with ``lock`` nobody else decides on it until the transaction ends."""
    statement = select(packages).where(packages.c.sha256 == sha256)
    row = (await connection.execute(statement.with_for_update() if lock else statement)).first()
    if row is None:
        return None
    return Candidate(
        row.sha256,
        row.package_name,
        row.size,
        Decision(row.decision),
        row.channel,
        row.target_path,
        await _wanted(connection, sha256),
        await _evidence(connection, sha256),
        tuple(await targets_of(connection, sha256)),
    )


async def _wanted(connection: AsyncConnection, sha256: str) -> tuple[Wanted, ...]:
    signed = and_(
        pipeline_stages.c.pipeline_id == pipelines.c.pipeline_id,
        pipeline_stages.c.stage == int(Stage.SIGN),
    )
    statement = (
        select(pipelines.c.channel, pipeline_stages.c.outcome)
        .select_from(pipelines.join(pipeline_stages, signed))
        .where(pipelines.c.package == sha256, pipelines.c.state.in_(_ENDED))
        .order_by(pipelines.c.create_time, pipelines.c.pipeline_id)
    )
    found: dict[str, Wanted] = {}
    for row in await connection.execute(statement):
        file_name = json.loads(row.outcome).get("package", {}).get("file_name", "")
        if file_name:
            found.setdefault(row.channel, Wanted(row.channel, file_name))
    return tuple(found.values())


async def _evidence(connection: AsyncConnection, sha256: str) -> tuple[tuple[str, str], ...]:
    table = package_attestations.c
    statement = select(table.kind, table.sha256).where(
        table.package == sha256, table.kind.in_(EVIDENCE_KINDS)
    )
    found = {row.kind: row.sha256 for row in await connection.execute(statement)}
    return tuple((kind, found[kind]) for kind in EVIDENCE_KINDS if kind in found)


async def envelopes(connection: AsyncConnection, sha256: str) -> dict[str, bytes]:
    """Return the attestations of a package that are released with it, by the digest of each."""
    table = package_attestations.c
    statement = select(table.sha256, table.envelope).where(
        table.package == sha256, table.kind.in_(EVIDENCE_KINDS)
    )
    return {row.sha256: bytes(row.envelope) for row in await connection.execute(statement)}


async def envelope(connection: AsyncConnection, sha256: str, kind: str) -> bytes | None:
    """Return one attestation of a package, or None."""
    table = package_attestations.c
    statement = select(table.envelope).where(table.package == sha256, table.kind == kind)
    row = (await connection.execute(statement)).first()
    return bytes(row.envelope) if row else None


async def document(connection: AsyncConnection, sha256: str, name: str) -> str | None:
    """Return the digest of a document that stage SBOM wrote of a package, by its name; None for none."""
    statement = (
        select(pipeline_stages.c.outcome)
        .join(packages, packages.c.pipeline_id == pipeline_stages.c.pipeline_id)
        .where(packages.c.sha256 == sha256, pipeline_stages.c.stage == int(Stage.SBOM))
    )
    row = (await connection.execute(statement)).first()
    found = json.loads(row.outcome).get(name) if row else None
    return found if isinstance(found, str) else None


async def show(work: UnitOfWork, sha256: str, channel: str, target_path: str) -> None:
    """Note where a package is released; empty texts where it is not."""
    statement = update(packages).where(packages.c.sha256 == sha256)
    await work.connection.execute(statement.values(channel=channel, target_path=target_path))


async def disagreeing(
    connection: AsyncConnection, after: str, limit: int, kinds: Collection[str] = EVIDENCE_KINDS
) -> list[str]:
    """Return packages above ``after``, in their order, whose release is not what was decided last."""
    decided = packages.c.decision.in_(RELEASING)
    shown = packages.c.target_path != ""
    wrong = or_(
        and_(decided, or_(_lacking(), _outdated(kinds), and_(_live(), ~shown))),
        and_(~decided, or_(_live(), shown)),
    )
    statement = select(packages.c.sha256).where(packages.c.sha256 > after, wrong)
    return list((await connection.execute(statement.order_by(packages.c.sha256).limit(limit))).scalars())


def _live(*more: ColumnElement[bool]) -> ColumnElement[bool]:
    table = tuf_targets.c
    return exists().where(table.package == packages.c.sha256, table.withdraw_time.is_(None), *more)


def _lacking() -> ColumnElement[bool]:
    """A channel that a pipeline judged it for has nothing of it."""
    table = pipelines.c
    released = _live(tuf_targets.c.channel == table.channel).correlate(packages, pipelines)
    return exists().where(table.package == packages.c.sha256, table.state.in_(_ENDED), ~released)


def _outdated(kinds: Collection[str]) -> ColumnElement[bool]:
    """An attestation that stands is not in a released file of attestations."""
    table = package_attestations.c
    other = _live(tuf_targets.c.evidence != "", tuf_targets.c.evidence.not_like("%" + table.sha256 + "%"))
    stale = other.correlate(packages, package_attestations)
    return exists().where(table.package == packages.c.sha256, table.kind.in_(kinds), stale)
