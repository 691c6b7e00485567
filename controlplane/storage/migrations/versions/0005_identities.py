"""Identity: which certificates operators and integrators have.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; identities that were issued before come into it when they are seen."""
    op.create_table(
        "identities",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_identities")),
        comment="Certificates of operators and integrators; denied_serials says which are revoked.",
    )
    op.create_index(op.f("ix_identities_create_time_serial"), "identities", ["create_time", "serial"])
