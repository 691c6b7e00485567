"""Telemetry: the tables of these rooms.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "telemetry_cursors",
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("journal_id", sa.String(length=64), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("dropped_total", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "journal_id", name=op.f("pk_telemetry_cursors")),
        comment="How far each journal of an agent is committed.",
    )
    op.create_table(
        "telemetry_points",
        sa.Column(
            "point_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("metric", sa.String(length=128), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("attributes", sa.Text(), server_default="{}", nullable=False),
        sa.Column("receive_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("point_id", name=op.f("pk_telemetry_points")),
        comment="What agents measured, in the order of commits.",
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_telemetry_points_agent_id_metric_time"),
        "telemetry_points",
        ["agent_id", "metric", "time"],
        unique=False,
    )
    op.create_index(op.f("ix_telemetry_points_time"), "telemetry_points", ["time"], unique=False)
