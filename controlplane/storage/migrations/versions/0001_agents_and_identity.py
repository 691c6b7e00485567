"""Agents and identity: the tables of these rooms.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "agent_labels",
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("key", sa.String(length=63), nullable=False),
        sa.Column("value", sa.String(length=253), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "key", name=op.f("pk_agent_labels")),
    )
    op.create_index(op.f("ix_agent_labels_key_value"), "agent_labels", ["key", "value"], unique=False)
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("notes", sa.Text(), server_default="", nullable=False),
        sa.Column("presence", sa.Integer(), nullable=False),
        sa.Column("presence_time", sa.BigInteger(), nullable=False),
        sa.Column("presence_reason", sa.Integer(), nullable=False),
        sa.Column("presence_detail", sa.Text(), server_default="", nullable=False),
        sa.Column("last_seen_time", sa.BigInteger(), nullable=True),
        sa.Column("hostname", sa.String(length=253), server_default="", nullable=False),
        sa.Column("os_family", sa.String(length=64), server_default="", nullable=False),
        sa.Column("os_name", sa.String(length=128), server_default="", nullable=False),
        sa.Column("os_version", sa.String(length=128), server_default="", nullable=False),
        sa.Column("kernel_version", sa.String(length=128), server_default="", nullable=False),
        sa.Column("architecture", sa.String(length=64), server_default="", nullable=False),
        sa.Column("agent_version", sa.String(length=64), server_default="", nullable=False),
        sa.Column("task_kinds", sa.Text(), server_default="[]", nullable=False),
        sa.Column("inventory_digest", sa.String(length=64), server_default="", nullable=False),
        sa.Column("clock_offset", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("session_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=True),
        sa.Column("previous_nonce", sa.LargeBinary(), nullable=True),
        sa.Column("boot_id", sa.String(length=64), server_default="", nullable=False),
        sa.Column("journal_id", sa.String(length=64), server_default="", nullable=False),
        sa.Column("suspected_clone", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("certificate_expire_time", sa.BigInteger(), nullable=True),
        sa.Column("enroll_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=True),
        sa.Column("edit_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agents")),
        comment="Every agent that was ever enrolled; one with a delete_time is a tombstone.",
    )
    op.create_index(op.f("ix_agents_presence"), "agents", ["presence"], unique=False)
    op.create_index(op.f("ix_agents_revision_agent_id"), "agents", ["revision", "agent_id"], unique=False)
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("issue_time", sa.BigInteger(), nullable=False),
        sa.Column("revoke_time", sa.BigInteger(), nullable=True),
        sa.Column("revoke_reason", sa.Text(), nullable=True),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificates")),
        comment="Every certificate issued to an agent; state: 1 next, 2 current, 3 superseded, 4 revoked.",
    )
    op.create_index(
        op.f("ix_certificates_agent_id_state"), "certificates", ["agent_id", "state"], unique=False
    )
    op.create_index(op.f("ix_certificates_not_after"), "certificates", ["not_after"], unique=False)
    op.create_table(
        "commit_counter",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commit_counter")),
        comment="One row: the number of the last transaction that changed something that is watched.",
    )
    op.create_table(
        "denied_serials",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("deny_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_denied_serials")),
        comment="Certificates of operators and integrators that are refused; of agents, see certificates.",
    )
    op.create_table(
        "enrollment_tokens",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("max_uses", sa.Integer(), nullable=False),
        sa.Column("use_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("allow_reenrollment", sa.Boolean(), nullable=False),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("revoke_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_enrollment_tokens")),
        comment="Who may enrol. The secret itself is not kept, only its SHA-256.",
    )
    op.create_index(
        op.f("ix_enrollment_tokens_create_time_token_id"),
        "enrollment_tokens",
        ["create_time", "token_id"],
        unique=False,
    )
    op.create_table(
        "enrollment_uses",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("use_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"], ["enrollment_tokens.token_id"], name=op.f("fk_enrollment_uses_token_id")
        ),
        sa.PrimaryKeyConstraint("token_id", "agent_id", "key_digest", name=op.f("pk_enrollment_uses")),
        comment="What each use of a token gave, so that the same request sent again is answered alike.",
    )
    op.execute("INSERT INTO commit_counter (id, value) VALUES (1, 0)")
