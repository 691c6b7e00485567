"""Points on PostgreSQL: a partition for each day of receipt, filled by COPY, dropped when that is over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.postgresql import binary, driver
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.telemetry.records import PointRecord

DAY = 86_400_000_000
"""Microseconds of a day; partitions begin at midnight, UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PREFIX = "telemetry_points_"
COPY = (
    "COPY telemetry_points (agent_id, metric, time, value, attributes, receive_time, revision) "
    "FROM STDIN (FORMAT BINARY)"
)
"""How points are stored, as rows of columns of these ``TYPES``."""
TYPES = ("varchar", "varchar", "int8", "float8", "text", "int8", "int8")
_MEASURED = Struct(">iqid")
"""The fields time and value, of type bigint and double precision."""

_LOCK = 0x706F696E74
"""Who holds this lock of the database makes or drops partitions; the number says "point"."""

_known: WeakKeyDictionary[Engine, set[int]] = WeakKeyDictionary()
"""Days whose partition this process has seen, by the engine that saw it."""


async def insert_points(work: UnitOfWork, batches: Sequence[tuple[str, int, Sequence[PointRecord]]]) -> None:
    """Store points: agent id, receive time and points of each batch."""
    await _make_missing(work, {receive_time // DAY for _, receive_time, _ in batches})
    revision = await work.revision()
    rows: list[bytes] = []
    for agent_id, receive_time, points in batches:
        head = binary.begin(len(TYPES)) + binary.text(agent_id)
        tail = binary.integer(receive_time) + binary.integer(revision)
        for metric, time, value, attributes in points:
            rows += (
                head,
                binary.text(metric),
                _MEASURED.pack(8, time, 8, value),
                binary.text(attributes),
                tail,
            )
    count = sum(len(points) for _, _, points in batches)
    await driver.of(work.connection).copy_in(COPY, b"".join(rows), count)


async def _make_missing(work: UnitOfWork, days: set[int]) -> None:
    known = _known.setdefault(work.connection.sync_connection.engine, set())  # type: ignore[union-attr]
    if days <= known:
        return
    await work.connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    there = set(await _days(work.connection))
    for day in sorted(days - there):
        # Attached and not made as a part: that would wait for everyone who reads or writes points.
        name, begin = _name(day), day * DAY
        await work.connection.execute(text(f"CREATE TABLE {name} (LIKE telemetry_points INCLUDING DEFAULTS)"))
        await work.connection.execute(
            text(
                f"ALTER TABLE telemetry_points ATTACH PARTITION {name} "
                f"FOR VALUES FROM ({begin}) TO ({begin + DAY})"
            )
        )
    work.after_commit(lambda: known.update(days))


async def over(connection: AsyncConnection, before: int) -> list[int]:
    """Return the days whose points were all received before an instant, oldest first."""
    return [day for day in await _days(connection) if (day + 1) * DAY <= before]


async def drop(work: UnitOfWork, day: int) -> int:
    """Drop the partition of a day; returns how many points that were, as the server estimates it.

    Waits for a lock at most two seconds: behind a long reader, writers would wait too.
    """
    _known.get(work.connection.sync_connection.engine, set()).discard(day)  # type: ignore[union-attr]
    await work.connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    await work.connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    name = _name(day)
    estimate = text("SELECT greatest(n_live_tup, 0) FROM pg_stat_user_tables WHERE relname = :name")
    points = int((await work.connection.execute(estimate, {"name": name})).scalar() or 0)
    await work.connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
    return points


async def _days(connection: AsyncConnection) -> list[int]:
    parts = text(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = 'telemetry_points'::regclass ORDER BY relname"
    )
    names = (await connection.execute(parts)).scalars()
    return [_day(name) for name in names if name.startswith(_PREFIX)]


def _name(day: int) -> str:
    return f"{_PREFIX}{_EPOCH + timedelta(days=day):%Y%m%d}"


def _day(name: str) -> int:
    return (datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC) - _EPOCH).days
