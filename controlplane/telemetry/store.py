"""The room's tables, and all SQL that touches them. Instants are microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.prepared import Prepared
from controlplane.storage.schema import metadata
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.telemetry.records import Choice, PointRecord, StoredPoint

telemetry_points = Table(
    "telemetry_points",
    metadata,
    # AUTOINCREMENT never gives the number of a pruned point to another one: watches rely on it.
    Column("point_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("agent_id", String(63), nullable=False),
    Column("metric", String(128), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    Column("attributes", Text, nullable=False, server_default="{}"),
    Column("receive_time", BigInteger, nullable=False),
    Index(None, "agent_id", "metric", "time"),
    Index(None, "time"),
    sqlite_autoincrement=True,
    comment="What agents measured, in the order of commits.",
)

telemetry_cursors = Table(
    "telemetry_cursors",
    metadata,
    Column("agent_id", String(63), primary_key=True),
    Column("journal_id", String(64), primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
    Column("dropped_total", BigInteger, nullable=False, server_default=text("0")),
    Column("update_time", BigInteger, nullable=False),
    comment="How far each journal of an agent is committed.",
)

Key = tuple[str, str]
"""Agent id and journal id."""


@dataclass(frozen=True, slots=True)
class JournalCursor:
    """How far a journal is committed, and how many of its numbers were given up."""

    last_sequence: int
    dropped_total: int
    update_time: int


async def cursors(connection: AsyncConnection, agent_ids: Sequence[str]) -> dict[Key, JournalCursor]:
    """Return the cursors of all journals of ``agent_ids``, at most 10,000 of them."""
    statement = select(telemetry_cursors).where(telemetry_cursors.c.agent_id.in_(agent_ids))
    rows = await connection.execute(statement)
    return {
        (row.agent_id, row.journal_id): JournalCursor(row.last_sequence, row.dropped_total, row.update_time)
        for row in rows
    }


async def last_sequences(connection: AsyncConnection, keys: Sequence[Key]) -> dict[Key, int]:
    """Return up to which number journals are committed; one that is not known is left out."""
    found = await cursors(connection, [agent_id for agent_id, _ in keys])
    return {key: cursor.last_sequence for key, cursor in found.items()}


_INSERT_POINTS = Prepared(
    insert(telemetry_points), ("agent_id", "metric", "time", "value", "attributes", "receive_time")
)


async def insert_points(work: UnitOfWork, points: Sequence[tuple[str, int, Sequence[PointRecord]]]) -> None:
    """Store points: agent id, receive time and points of each batch."""
    rows = [
        {
            "agent_id": agent_id,
            "metric": point.metric,
            "time": point.time,
            "value": point.value,
            "attributes": point.attributes,
            "receive_time": receive_time,
        }
        for agent_id, receive_time, batch in points
        for point in batch
    ]
    await _INSERT_POINTS.run_each(work.connection, rows)


# This statement and that of last_point_id are the ones that know the dialect.
_UPSERT = sqlite.insert(telemetry_cursors)
_UPSERT_CURSORS = Prepared(
    _UPSERT.on_conflict_do_update(
        index_elements=[telemetry_cursors.c.agent_id, telemetry_cursors.c.journal_id],
        set_={name: _UPSERT.excluded[name] for name in ("last_sequence", "dropped_total", "update_time")},
    ),
    ("agent_id", "journal_id", "last_sequence", "dropped_total", "update_time"),
)


async def write_cursors(work: UnitOfWork, moved: Mapping[Key, JournalCursor]) -> None:
    """Write the cursors of journals, known or not."""
    rows = [
        {
            "agent_id": agent_id,
            "journal_id": journal_id,
            "last_sequence": cursor.last_sequence,
            "dropped_total": cursor.dropped_total,
            "update_time": cursor.update_time,
        }
        for (agent_id, journal_id), cursor in moved.items()
    ]
    await _UPSERT_CURSORS.run_each(work.connection, rows)


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


async def last_point_id(connection: AsyncConnection) -> int:
    """Return the number of the last committed point; 0 where there never was one.

    The last one ever, not the last that is still there: what retention took is no news.
    """
    statement = text("SELECT seq FROM sqlite_sequence WHERE name = 'telemetry_points'")
    return int((await connection.execute(statement)).scalar() or 0)


async def committed(
    connection: AsyncConnection, choice: Choice, after: int, up_to: int, limit: int
) -> list[StoredPoint]:
    """Return at most ``limit`` chosen points in the order of commits, above ``after``."""
    points = telemetry_points.c
    conditions: list[ColumnElement[bool]] = [points.point_id > after, points.point_id <= up_to]
    # Concatenated with nothing, so that the planner reads the few new points by their number
    # and not the whole history of an agent by its index.
    if choice.agent_id:
        conditions.append(points.agent_id.concat("") == choice.agent_id)
    if choice.metric:
        conditions.append(points.metric.concat("") == choice.metric)
    statement = select(telemetry_points).where(*conditions).order_by(points.point_id).limit(limit)
    return await _read(connection, statement)


async def prune(work: UnitOfWork, before: int, limit: int) -> int:
    """Delete those of the oldest ``limit`` points that were received before ``before``.

    By the time of receipt: an agent's clock must not decide how long we keep what it
    sends. Returns how many; fewer than ``limit`` means that no older one is left.
    """
    points = telemetry_points.c
    oldest = select(points.point_id, points.receive_time).order_by(points.point_id).limit(limit).subquery()
    newest = select(func.max(oldest.c.point_id)).where(oldest.c.receive_time < before).scalar_subquery()
    statement = delete(telemetry_points).where(points.point_id <= newest, points.receive_time < before)
    return (await work.connection.execute(statement)).rowcount


async def prune_cursors(work: UnitOfWork, before: int, limit: int) -> int:
    """Delete at most ``limit`` cursors of journals that their agents left for a newer one before ``before``.

    The newest journal of an agent keeps its cursor however long it is silent: without it,
    what was committed would be asked for again and count as lost. Returns how many.
    """
    newer = telemetry_cursors.alias("newer")
    mine, theirs = telemetry_cursors.c, newer.c
    replaced = exists().where(theirs.agent_id == mine.agent_id, theirs.update_time > mine.update_time)
    old = (
        select(mine.agent_id, mine.journal_id)
        .where(mine.update_time < before, replaced.correlate(telemetry_cursors))
        .limit(limit)
    )
    statement = delete(telemetry_cursors).where(tuple_(mine.agent_id, mine.journal_id).in_(old))
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
    return StoredPoint(row.point_id, row.agent_id, point, row.receive_time)
