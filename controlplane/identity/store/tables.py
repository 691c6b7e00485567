"""The tables of the identity room. Instants are microseconds; serial numbers lower-case hexadecimal."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from controlplane.storage.schema import metadata

enrollment_tokens = Table(
    "enrollment_tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("secret_digest", LargeBinary(32), nullable=False),
    Column("description", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("max_uses", Integer, nullable=False),
    Column("use_count", Integer, nullable=False, server_default=text("0")),
    Column("allow_reenrollment", Boolean, nullable=False),
    Column("creator", String(512), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Column("revoke_time", BigInteger, nullable=True),
    Index(None, "create_time", "token_id"),
    comment="Who may enrol. The secret itself is not kept, only its SHA-256.",
)

enrollment_uses = Table(
    "enrollment_uses",
    metadata,
    Column("token_id", String(16), ForeignKey("enrollment_tokens.token_id"), primary_key=True),
    Column("agent_id", String(63), primary_key=True),
    Column("key_digest", LargeBinary(32), primary_key=True),
    Column("serial", String(40), nullable=False),
    Column("use_time", BigInteger, nullable=False),
    comment="What each use of a token gave, so that the same request sent again is answered alike.",
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("agent_id", String(63), nullable=False),
    Column("key_digest", LargeBinary(32), nullable=False),
    Column("state", Integer, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("issue_time", BigInteger, nullable=False),
    Column("revoke_time", BigInteger, nullable=True),
    Column("revoke_reason", Text, nullable=True),
    Column("der", LargeBinary, nullable=False),
    Index(None, "agent_id", "state"),
    Index(None, "not_after"),
    Index(
        None,
        "revoke_time",
        sqlite_where=text("revoke_time IS NOT NULL"),
        postgresql_where=text("revoke_time IS NOT NULL"),
    ),
    comment="Every certificate issued to an agent; state: 1 next, 2 current, 3 superseded, 4 revoked.",
)

identities = Table(
    "identities",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(63), nullable=False),
    Column("creator", String(512), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Index(None, "create_time", "serial"),
    comment="Certificates of operators and integrators; denied_serials says which are revoked.",
)

denied_serials = Table(
    "denied_serials",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("not_after", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("creator", String(512), nullable=False),
    Column("deny_time", BigInteger, nullable=False),
    comment="Certificates of operators and integrators that are refused; of agents, see certificates.",
)
