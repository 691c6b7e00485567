"""Tasks: the delivery ledger.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "task_events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("task_id", sa.String(length=128), nullable=False),
        sa.Column("attempt_id", sa.String(length=64), nullable=True),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("event", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("session_epoch", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.String(length=200), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_events")),
        comment="What happened to tasks, in the order in which it was written.",
    )
    op.create_index(op.f("ix_task_events_task_id"), "task_events", ["task_id"], unique=False)
    op.create_index(op.f("ix_task_events_agent_id_time"), "task_events", ["agent_id", "time"], unique=False)
    op.create_index(op.f("ix_task_events_time"), "task_events", ["time"], unique=False)
