"""Advisories: imports, their records, and what those say of packages.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "advisory_imports",
        sa.Column(
            "version",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("ecosystem", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), server_default="", nullable=False),
        sa.Column("records", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("entries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("withdrawn", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("newest_modified", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("import_time", sa.BigInteger(), nullable=False),
        sa.Column("rollback_accepted", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("releases", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_advisory_imports")),
        sqlite_autoincrement=True,
        comment="Every import of advisories, the one in force among them.",
    )
    in_force = sa.text("state = 'in_force'")
    op.create_index(
        "uq_advisory_imports_in_force",
        "advisory_imports",
        ["ecosystem"],
        unique=True,
        sqlite_where=in_force,
        postgresql_where=in_force,
    )
    op.create_index(
        op.f("ix_advisory_imports_ecosystem_version"),
        "advisory_imports",
        ["ecosystem", "version"],
        unique=False,
    )
    op.create_table(
        "advisories",
        sa.Column("import_version", sa.BigInteger(), nullable=False),
        sa.Column("advisory_id", sa.String(length=128), nullable=False),
        sa.Column("modified", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn", sa.BigInteger(), nullable=True),
        sa.Column("brief", sa.LargeBinary(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("import_version", "advisory_id", name=op.f("pk_advisories")),
        comment="Records of advisories, as they came.",
    )
    op.create_table(
        "advisory_packages",
        sa.Column("import_version", sa.BigInteger(), nullable=False),
        sa.Column("ecosystem", sa.String(length=512), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("advisory_id", sa.String(length=128), nullable=False),
        sa.Column("affected", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "import_version", "ecosystem", "name", "advisory_id", name=op.f("pk_advisory_packages")
        ),
        sqlite_with_rowid=False,
        comment="What each record says of each package, for matching.",
    )
    op.create_table(
        "advisory_aliases",
        sa.Column("import_version", sa.BigInteger(), nullable=False),
        sa.Column("alias", sa.String(length=128), nullable=False),
        sa.Column("advisory_id", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("import_version", "alias", "advisory_id", name=op.f("pk_advisory_aliases")),
        sqlite_with_rowid=False,
        comment="Other names of the vulnerabilities that records are of.",
    )
