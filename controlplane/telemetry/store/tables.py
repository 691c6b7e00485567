"""The tables of the telemetry room. Instants are microseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Table, Text, text

from controlplane.storage.schema import metadata

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
    # The transaction that stored it, on PostgreSQL; on SQLite point_id tells the order of commits.
    Column("revision", BigInteger, nullable=False, server_default=text("0")),
    Index(None, "agent_id", "metric", "time"),
    Index(None, "time", postgresql_using="brin"),
    sqlite_autoincrement=True,
    postgresql_partition_by="RANGE (receive_time)",
    comment="What agents measured.",
)

telemetry_cursors = Table(
    "telemetry_cursors",
    metadata,
    Column("agent_id", String(63), primary_key=True),
    Column("journal_id", String(64), primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
    Column("dropped_total", BigInteger, nullable=False, server_default=text("0")),
    Column("update_time", BigInteger, nullable=False),
    # "epoch:number" of the last sessions that stored any: which, and where the journal stood before.
    Column("stretches", Text, nullable=False, server_default=""),
    comment="How far each journal of an agent is committed.",
)
