"""Pipelines, their stages and their logs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.filtering import BoundFilter, EnumField, FilterSchema, TextField, TimestampField
from controlplane.packaging.rules import Decision, PipelineState, Stage, StageState
from controlplane.packaging.store.tables import pipeline_log, pipeline_stages, pipelines
from controlplane.storage.filters import compile_filter
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.watching import Cursor, Seen

FILTER = FilterSchema(
    {
        "pipeline_id": TextField(),
        "artefact": TextField(),
        "artefact_type": TextField(),
        "target_platform": TextField(),
        "package_name": TextField(),
        "package_version": TextField(),
        "channel": TextField(),
        "state": EnumField({state.name: int(state) for state in PipelineState}, prefix="PIPELINE_STATE_"),
        "decision": EnumField(
            {decision.name: int(decision) for decision in Decision}, prefix="POLICY_DECISION_"
        ),
        "build_id": TextField(),
        "source_repository": TextField(),
        "source_commit": TextField(),
        "creator": TextField(),
        "create_time": TimestampField(),
        "update_time": TimestampField(),
    }
)
"""What a filter over pipelines may name; every field is a column of the same name."""

MOST_LOG_LINES = 10_000
"""Lines that are kept of one pipeline; a stage that says more is cut off, and says so."""

Counts = tuple[int, int, int, int, int]
"""Vulnerabilities: critical, high, medium, low, unknown."""


@dataclass(frozen=True, slots=True)
class PipelineRecord:
    """A pipeline. ``counts`` is None before the scan, ``package`` before its bytes are final."""

    pipeline_id: str
    artefact: str
    file_name: str
    artefact_type: str
    target_platform: str
    package_name: str
    package_version: str
    channel: str
    state: PipelineState
    state_time: int
    reason: str
    stage: Stage | None
    counts: Counts | None
    decision: Decision
    build_id: str
    source_repository: str
    source_commit: str
    manifest: str
    vex: str
    package: str | None
    creator: str
    create_time: int
    update_time: int
    run_count: int
    fence: int
    cancel_requested: bool
    revision: int


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What a stage did. ``report`` is for people, ``outcome`` for the stages after it; both are JSON."""

    stage: Stage
    state: StageState
    start_time: int | None = None
    end_time: int | None = None
    reason: str = ""
    reason_code: str = ""
    run_count: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a pipeline's log."""

    number: int
    time: int
    stage: Stage
    level: str
    text: str


_COUNTS = ("critical", "high", "medium", "low", "unknown")


def _pipeline(row: Row[Any]) -> PipelineRecord:
    values = {name: getattr(row, name) for name in PipelineRecord.__slots__ if name != "counts"}
    counts = None if row.critical is None else tuple(getattr(row, name) for name in _COUNTS)
    values |= {
        "state": PipelineState(row.state),
        "stage": Stage(row.stage) if row.stage else None,
        "decision": Decision(row.decision),
        "cancel_requested": bool(row.cancel_requested),
    }
    return PipelineRecord(counts=counts, **values)


async def insert_pipeline(work: UnitOfWork, pipeline: PipelineRecord) -> None:
    """Insert a new pipeline, with its seven stages pending."""
    values = {name: getattr(pipeline, name) for name in PipelineRecord.__slots__ if name != "counts"}
    values |= {
        "state": int(pipeline.state),
        "stage": int(pipeline.stage or 0),
        "decision": int(pipeline.decision),
        "revision": await work.revision(),
    }
    await work.connection.execute(insert(pipelines).values(values))
    rows = [
        {"pipeline_id": pipeline.pipeline_id, "stage": int(stage), "state": int(StageState.PENDING)}
        for stage in Stage
    ]
    await work.connection.execute(insert(pipeline_stages), rows)


async def find(connection: AsyncConnection, pipeline_id: str, *, lock: bool = False) -> PipelineRecord | None:
    """Return a pipeline, or None; with ``lock`` nobody else changes it until the transaction ends."""
    statement = select(pipelines).where(pipelines.c.pipeline_id == pipeline_id)
    if lock:
        # SQLite, which knows no such thing, writes one transaction at a time.
        statement = statement.with_for_update()
    row = (await connection.execute(statement)).first()
    return _pipeline(row) if row else None


async def change(work: UnitOfWork, pipeline_id: str, **values: Any) -> None:
    """Write columns of a pipeline, which is watched."""
    statement = update(pipelines).where(pipelines.c.pipeline_id == pipeline_id)
    await work.connection.execute(statement.values(revision=await work.revision(), **values))


async def stages(connection: AsyncConnection, pipeline_ids: Sequence[str]) -> dict[str, list[StageRecord]]:
    """Return the stages of pipelines, in their order."""
    table = pipeline_stages.c
    rows = await connection.execute(
        select(pipeline_stages)
        .where(table.pipeline_id.in_(pipeline_ids))
        .order_by(table.pipeline_id, table.stage)
    )
    found: dict[str, list[StageRecord]] = {}
    for row in rows:
        found.setdefault(row.pipeline_id, []).append(_stage(row))
    return found


def _stage(row: Row[Any]) -> StageRecord:
    return StageRecord(
        Stage(row.stage),
        StageState(row.state),
        row.start_time,
        row.end_time,
        row.reason,
        row.reason_code,
        row.run_count,
        json.loads(row.report),
        json.loads(row.outcome),
    )


async def outcomes(
    connection: AsyncConnection, pipeline_ids: Sequence[str], stage: Stage
) -> dict[str, Mapping[str, Any]]:
    """Return what one stage of pipelines found."""
    table = pipeline_stages.c
    rows = await connection.execute(
        select(table.pipeline_id, table.outcome).where(
            table.pipeline_id.in_(pipeline_ids), table.stage == int(stage)
        )
    )
    return {row.pipeline_id: json.loads(row.outcome) for row in rows}


async def change_stage(work: UnitOfWork, pipeline_id: str, stage: Stage, **values: Any) -> None:
    """Write columns of a stage; ``report`` and ``outcome`` are given as mappings."""
    for name in ("report", "outcome"):
        if name in values:
            values[name] = json.dumps(values[name], separators=(",", ":"), sort_keys=True)
    table = pipeline_stages.c
    await work.connection.execute(
        update(pipeline_stages)
        .where(table.pipeline_id == pipeline_id, table.stage == int(stage))
        .values(**values)
    )


def condition(chosen: BoundFilter) -> ColumnElement[bool]:
    """Return the condition of a filter over pipelines."""
    return compile_filter(chosen, {name: pipelines.c[name] for name in FILTER.fields})


async def page(
    connection: AsyncConnection, chosen: BoundFilter, before: tuple[int, str] | None, limit: int
) -> list[PipelineRecord]:
    """Return pipelines that match, newest first, after the place ``before``: (create_time, pipeline_id)."""
    table = pipelines.c
    statement = select(pipelines).where(condition(chosen))
    if before is not None:
        created, pipeline_id = before
        later = (table.create_time == created) & (table.pipeline_id < pipeline_id)
        statement = statement.where((table.create_time < created) | later)
    ordered = statement.order_by(table.create_time.desc(), table.pipeline_id.desc()).limit(limit)
    return [_pipeline(row) for row in await connection.execute(ordered)]


async def count(connection: AsyncConnection, chosen: BoundFilter) -> int:
    """Return how many pipelines match."""
    statement = select(func.count()).select_from(pipelines).where(condition(chosen))
    return int((await connection.execute(statement)).scalar_one())


async def changed(
    connection: AsyncConnection, chosen: BoundFilter, after: Cursor, limit: int
) -> list[Seen[PipelineRecord]]:
    """Return pipelines above a cursor, in the order of their revisions, each with whether it matches."""
    table = pipelines.c
    rows = await connection.execute(
        select(pipelines, condition(chosen).label("matches"))
        .where(tuple_(table.revision, table.pipeline_id) > tuple_(*after))
        .order_by(table.revision, table.pipeline_id)
        .limit(limit)
    )
    return [Seen(_pipeline(row), (row.revision, row.pipeline_id), bool(row.matches)) for row in rows]


async def append_log(work: UnitOfWork, pipeline_id: str, lines: Sequence[LogLine]) -> None:
    """Append lines, whose numbers follow the last one's."""
    rows = [
        {
            "pipeline_id": pipeline_id,
            "number": line.number,
            "time": line.time,
            "stage": int(line.stage),
            "level": line.level,
            "text": line.text,
        }
        for line in lines
    ]
    await work.connection.execute(insert(pipeline_log), rows)


async def log_length(connection: AsyncConnection, pipeline_id: str) -> int:
    """Return the number of the last line of a pipeline's log; 0 for none."""
    statement = select(func.max(pipeline_log.c.number)).where(pipeline_log.c.pipeline_id == pipeline_id)
    return int((await connection.execute(statement)).scalar() or 0)


async def log_after(connection: AsyncConnection, pipeline_id: str, number: int, limit: int) -> list[LogLine]:
    """Return lines of a log above a number, in their order."""
    table = pipeline_log.c
    rows = await connection.execute(
        select(pipeline_log)
        .where(table.pipeline_id == pipeline_id, table.number > number)
        .order_by(table.number)
        .limit(limit)
    )
    return [LogLine(row.number, row.time, Stage(row.stage), row.level, row.text) for row in rows]
