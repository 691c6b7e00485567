"""Telemetry: on PostgreSQL, points are watched by the transaction that stored them.

On SQLite the numbers of points are in the order of commits, and all revisions are 0.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; a zero takes no room in a row of SQLite."""
    op.add_column(
        "telemetry_points",
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Rows are written in nearly this order.
        op.create_index(
            "ix_telemetry_points_revision", "telemetry_points", ["revision"], postgresql_using="brin"
        )
