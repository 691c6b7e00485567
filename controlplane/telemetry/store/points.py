"""Points: storing them by the thousand, reading them by time and in the order of commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, delete, func, insert, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.backends import POSTGRESQL
from controlplane.storage.prepared import Prepared
from controlplane.storage.unit_of_work import UnitOfWork, horizon
from controlplane.telemetry.records import Choice, Place, PointRecord, StoredPoint
from controlplane.telemetry.rules import MAX_SEQUENCE
from controlplane.telemetry.store import partitions
from controlplane.telemetry.store.tables import telemetry_points

_INSERT_POINTS = Prepared(
    insert(telemetry_points), ("agent_id", "metric", "time", "value", "attributes", "receive_time")
)
Batch = tuple[str, int, Sequence[PointRecord]]
"""Agent id, receive time and points."""


async def insert_points(work: UnitOfWork, batches: Sequence[Batch]) -> None:
    """Store the points of batches."""
    if work.connection.dialect.name == POSTGRESQL:
        await partitions.insert_points(work, batches)
        return
    rows = [
        {
            "agent_id": agent_id,
            "metric": point.metric,
            "time": point.time,
            "value": point.value,
            "attributes": point.attributes,
            "receive_time": receive_time,
        }
        for agent_id, receive_time, points in batches
        for point in points
    ]
    await _INSERT_POINTS.run_each(work.connection, rows)


async def page(
    connection: AsyncConnection, choice: Choice, after: tuple[int, int] | None, limit: int
) -> list[StoredPoint]:
    """Return at most ``limit`` points by (time, point id), above ``after``."""
    points = telemetry_points.c
    conditions = _of(choice)
    if after is not None:
        time, point_id = after
        later = or_(points.time > time, and_(points.time == time, points.point_id > point_id))
        conditions += [points.time >= time, later]
    statement = (
        select(telemetry_points).where(*conditions).order_by(points.time, points.point_id).limit(limit)
    )
    return await _read(connection, statement)


async def committed_up_to(connection: AsyncConnection) -> tuple[Place, bool]:
    """Return the place up to which no point can come any more, and whether there are points beyond it.

    On SQLite that of the last point ever, not the last that is still there: what retention took is no news.
    """
    if connection.dialect.name != POSTGRESQL:
        statement = text("SELECT seq FROM sqlite_sequence WHERE name = 'telemetry_points'")
        return (0, int((await connection.execute(statement)).scalar() or 0)), False
    end = await horizon(connection)
    beyond = select(select(telemetry_points.c.point_id).where(telemetry_points.c.revision >= end).exists())
    return (end - 1, MAX_SEQUENCE), bool((await connection.execute(beyond)).scalar())


async def committed(
    connection: AsyncConnection, choice: Choice, after: Place, up_to: Place, limit: int
) -> list[StoredPoint]:
    """Return at most ``limit`` chosen points in the order of commits, above ``after``."""
    points = telemetry_points.c
    if connection.dialect.name == POSTGRESQL:
        place = tuple_(points.revision, points.point_id)
        conditions: list[ColumnElement[bool]] = [
            points.revision.between(after[0], up_to[0]),
            place > tuple_(*after),
            place <= tuple_(*up_to),
        ]
    else:
        conditions = [points.point_id > after[1], points.point_id <= up_to[1]]
    # Concatenated with nothing, so that the planner reads the few new points by their number
    # and not the whole history of an agent by its index.
    if choice.agent_id:
        conditions.append(points.agent_id.concat("") == choice.agent_id)
    if choice.metric:
        conditions.append(points.metric.concat("") == choice.metric)
    statement = (
        select(telemetry_points).where(*conditions).order_by(points.revision, points.point_id).limit(limit)
    )
    return await _read(connection, statement)


async def prune(work: UnitOfWork, before: int, limit: int) -> int:
    """Delete those of the oldest ``limit`` points that were received before ``before``, on SQLite.

    By the time of receipt: an agent's clock must not decide how long we keep what it
    sends. Returns how many; fewer than ``limit`` means that no older one is left.
    """
    points = telemetry_points.c
    oldest = select(points.point_id, points.receive_time).order_by(points.point_id).limit(limit).subquery()
    newest = select(func.max(oldest.c.point_id)).where(oldest.c.receive_time < before).scalar_subquery()
    statement = delete(telemetry_points).where(points.point_id <= newest, points.receive_time < before)
    return (await work.connection.execute(statement)).rowcount


def _of(choice: Choice) -> list[ColumnElement[bool]]:
    points = telemetry_points.c
    conditions: list[ColumnElement[bool]] = []
    if choice.agent_id:
        conditions.append(points.agent_id == choice.agent_id)
    if choice.metric:
        conditions.append(points.metric == choice.metric)
    if choice.start is not None:
        conditions.append(points.time >= choice.start)
    if choice.end is not None:
        conditions.append(points.time < choice.end)
    return conditions


async def _read(connection: AsyncConnection, statement: Select[Any]) -> list[StoredPoint]:
    return [_stored(row) for row in await connection.execute(statement)]


def _stored(row: Row[Any]) -> StoredPoint:
    point = PointRecord(metric=row.metric, time=row.time, value=row.value, attributes=row.attributes)
    return StoredPoint(row.point_id, row.agent_id, point, row.receive_time, row.revision)
