"""Which sessions of an agent stored the points of a journal.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Remember with each journal where it stood when a session began to store."""
    op.add_column("telemetry_cursors", sa.Column("stretches", sa.Text(), nullable=False, server_default=""))
