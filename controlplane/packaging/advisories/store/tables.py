"""The tables of the advisories.

Rows of records, packages and aliases belong to an import by its version. One import of each ecosystem is in
force; those of others are being loaded, or wait to be deleted.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text, text

from controlplane.storage.schema import metadata

LOADING = "loading"
IN_FORCE = "in_force"
SUPERSEDED = "superseded"
"""Was in force; its records are deleted, and what it knew is remembered."""
FAILED = "failed"

_in_force = text("state = 'in_force'")

advisory_imports = Table(
    "advisory_imports",
    metadata,
    # AUTOINCREMENT: the version of an import that failed is never given to another.
    Column("version", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("ecosystem", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("digest", String(64), nullable=False, server_default=""),
    Column("records", BigInteger, nullable=False, server_default=text("0")),
    Column("entries", BigInteger, nullable=False, server_default=text("0")),
    Column("withdrawn", BigInteger, nullable=False, server_default=text("0")),
    Column("newest_modified", BigInteger, nullable=False, server_default=text("0")),
    Column("import_time", BigInteger, nullable=False),
    # 1 where an operator let it know less than the one before it.
    Column("rollback_accepted", Integer, nullable=False, server_default=text("0")),
    # Ecosystems with their releases, each with the number of its packages, as JSON.
    Column("releases", Text, nullable=False, server_default="{}"),
    Index(
        "uq_advisory_imports_in_force",
        "ecosystem",
        unique=True,
        sqlite_where=_in_force,
        postgresql_where=_in_force,
    ),
    Index(None, "ecosystem", "version"),
    sqlite_autoincrement=True,
    comment="Every import of advisories, the one in force among them.",
)

advisories = Table(
    "advisories",
    metadata,
    Column("import_version", BigInteger, primary_key=True),
    Column("advisory_id", String(128), primary_key=True),
    # How far the record knows, and when it was withdrawn.
    Column("modified", BigInteger, nullable=False),
    Column("withdrawn", BigInteger, nullable=True),
    # Aliases and severities, in the form of advisories/rows.py.
    Column("brief", LargeBinary, nullable=False),
    # The record's own bytes, compressed by zlib.
    Column("document", LargeBinary, nullable=False),
    comment="Records of advisories, as they came.",
)

advisory_packages = Table(
    "advisory_packages",
    metadata,
    Column("import_version", BigInteger, primary_key=True),
    # As the record writes it, with a release.
    Column("ecosystem", String(512), primary_key=True),
    Column("name", String(512), primary_key=True),
    Column("advisory_id", String(128), primary_key=True),
    # Ranges and versions, in the form of advisories/rows.py.
    Column("affected", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
    comment="What each record says of each package, for matching.",
)

advisory_aliases = Table(
    "advisory_aliases",
    metadata,
    Column("import_version", BigInteger, primary_key=True),
    Column("alias", String(128), primary_key=True),
    Column("advisory_id", String(128), primary_key=True),
    sqlite_with_rowid=False,
    comment="Other names of the vulnerabilities that records are of.",
)
