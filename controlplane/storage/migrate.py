"""Brings a database to the program's schema, forwards only.

Alembic keeps the revision in the database. One that this program does not know
was written by a newer one, and is refused untouched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

_SCRIPTS = Path(__file__).with_name("migrations")


class DatabaseUnusableError(Exception):
    """The database cannot be brought to the program's schema; the text says why and what to do."""


class NewerDatabaseError(DatabaseUnusableError):
    """The database was written by a newer program; update the program, or restore a backup of its time."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """Return the revision of the program's schema."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("the program has no migrations")
    return revision


def revisions() -> list[str]:
    """Return every revision, oldest first."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in reversed(list(scripts))]


def upgrade(path: Path, revision: str = "head") -> tuple[str | None, str]:
    """Upgrade the SQLite database at ``path``, making it where there is none.

    Returns (revision before, revision after). All steps are one transaction.
    Raises ``DatabaseUnusableError``, ``NewerDatabaseError`` among them.
    """
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    _one_transaction(engine)
    try:
        with engine.begin() as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            if before is not None and before not in revisions():
                raise NewerDatabaseError(
                    f"the database {path.name} has schema {before}, which this program (schema {head()}) "
                    "does not know: it was written by a newer one. Update fleetwright, or restore a backup"
                )
            command.upgrade(_config(connection), revision)
            after = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise DatabaseUnusableError(
            f"database {path}: {error.orig}: free some disk, or put the file back from a backup"
        ) from error
    finally:
        engine.dispose()
    return before, str(after)


def _one_transaction(engine: Engine) -> None:
    """Let BEGIN be sent: the driver's own handling commits before every CREATE and ALTER."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
