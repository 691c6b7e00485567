"""Pipelines that have not ended: what waits for a worker, what runs, and what is asked to stop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.packaging.rules import PipelineState
from controlplane.packaging.store.tables import IS_UNDER_WAY, pipelines


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a pipeline, by its number from 1."""

    pipeline_id: str
    number: int


async def waiting(connection: AsyncConnection, limit: int) -> list[Run]:
    """Return the runs that wait for a worker, the oldest first."""
    return await _runs(connection, (PipelineState.QUEUED,), limit)


async def under_way(connection: AsyncConnection, limit: int) -> list[Run]:
    """Return the runs that a workflow has to bring to an end, the oldest first."""
    return await _runs(connection, (PipelineState.QUEUED, PipelineState.RUNNING), limit)


async def _runs(connection: AsyncConnection, states: Collection[PipelineState], limit: int) -> list[Run]:
    table = pipelines.c
    found = await connection.execute(
        select(table.pipeline_id, table.run_count)
        .where(IS_UNDER_WAY, table.state.in_([int(state) for state in states]))
        .order_by(table.create_time, table.pipeline_id)
        .limit(limit)
    )
    return [Run(row.pipeline_id, row.run_count) for row in found]


async def to_stop(connection: AsyncConnection, pipeline_ids: Collection[str]) -> list[str]:
    """Return which of these pipelines somebody has asked to stop."""
    table = pipelines.c
    found = await connection.execute(
        select(table.pipeline_id).where(table.pipeline_id.in_(pipeline_ids), table.cancel_requested.is_(True))
    )
    return [row.pipeline_id for row in found]


async def counts(connection: AsyncConnection) -> dict[PipelineState, int]:
    """Return how many pipelines are in each state that is not final."""
    table = pipelines.c
    found = await connection.execute(
        select(table.state, func.count()).where(IS_UNDER_WAY).group_by(table.state)
    )
    known = {PipelineState(state): number for state, number in found}
    return {state: known.get(state, 0) for state in PipelineState if not state.final}
