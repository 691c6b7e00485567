"""Processes: who lives, which sessions each holds, and who runs which schedule.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; sessions of before have no process, so they are taken for closed."""
    op.create_table(
        "processes",
        sa.Column("process_id", sa.String(length=63), nullable=False),
        sa.Column("roles", sa.String(length=63), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("part", sa.String(length=127), server_default="", nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger(), nullable=False),
        sa.Column("addresses", sa.Text(), server_default="{}", nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("restarts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("process_id", name=op.f("pk_processes")),
        comment="Every process that lives, or did until its lease lapsed; one that ends in order takes its"
        " row away.",
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("holder", sa.String(length=63), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_begin_time", sa.BigInteger(), nullable=True),
        sa.Column("last_end_time", sa.BigInteger(), nullable=True),
        sa.Column("next_due_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
        comment="Periodic work that runs once in the installation, and which process holds it.",
    )
    # Every process asks every few seconds what was revoked through another one.
    is_revoked = sa.text("revoke_time IS NOT NULL")
    op.create_index(
        op.f("ix_certificates_revoke_time"),
        "certificates",
        ["revoke_time"],
        sqlite_where=is_revoked,
        postgresql_where=is_revoked,
    )
    op.add_column("agents", sa.Column("gateway_id", sa.String(length=63), nullable=True))
    op.create_index(op.f("ix_agents_gateway_id"), "agents", ["gateway_id"])
