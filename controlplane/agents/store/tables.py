"""The tables of the agents room. Instants and durations are microseconds."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    text,
)

from controlplane.storage.schema import metadata

agents = Table(
    "agents",
    metadata,
    Column("agent_id", String(63), primary_key=True),
    Column("notes", Text, nullable=False, server_default=""),
    Column("presence", Integer, nullable=False),
    Column("presence_time", BigInteger, nullable=False),
    Column("presence_reason", Integer, nullable=False),
    Column("presence_detail", Text, nullable=False, server_default=""),
    Column("last_seen_time", BigInteger, nullable=True),
    Column("hostname", String(253), nullable=False, server_default=""),
    Column("os_family", String(64), nullable=False, server_default=""),
    Column("os_name", String(128), nullable=False, server_default=""),
    Column("os_version", String(128), nullable=False, server_default=""),
    Column("kernel_version", String(128), nullable=False, server_default=""),
    Column("architecture", String(64), nullable=False, server_default=""),
    Column("agent_version", String(64), nullable=False, server_default=""),
    Column("task_kinds", Text, nullable=False, server_default="[]"),
    Column("inventory_digest", String(64), nullable=False, server_default=""),
    Column("clock_offset", BigInteger, nullable=False, server_default=text("0")),
    Column("session_epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("gateway_id", String(63), nullable=True),
    Column("nonce", LargeBinary, nullable=True),
    Column("previous_nonce", LargeBinary, nullable=True),
    Column("boot_id", String(64), nullable=False, server_default=""),
    Column("journal_id", String(64), nullable=False, server_default=""),
    Column("suspected_clone", Boolean, nullable=False, server_default=false()),
    Column("certificate_expire_time", BigInteger, nullable=True),
    Column("enroll_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("delete_time", BigInteger, nullable=True),
    Column("edit_version", Integer, nullable=False, server_default=text("1")),
    Column("revision", BigInteger, nullable=False),
    # Its place among 10,000, by its id: what a percentage of a selector is cut from.
    Column("bucket", Integer, nullable=False, server_default=text("0")),
    Index(None, "revision", "agent_id"),
    Index(None, "presence"),
    comment="Every agent that was ever enrolled; one with a delete_time is a tombstone.",
)
IS_HELD = agents.c.gateway_id.is_not(None)
"""The condition of an agent that a process holds, or held last; others are in no index of holders."""
Index("ix_agents_gateway_id", agents.c.gateway_id, sqlite_where=IS_HELD, postgresql_where=IS_HELD)

agent_groups = Table(
    "agent_groups",
    metadata,
    Column("agent_id", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Index(None, "name"),
)

agent_labels = Table(
    "agent_labels",
    metadata,
    Column("agent_id", String(63), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(253), nullable=False),
    Index(None, "key", "value"),
)
