"""Brings a database to the program's schema, forwards only.

Alembic keeps the revision in the database. One that this program does not know
was written by a newer one, and is refused untouched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from controlplane.storage.backends import POSTGRESQL
from controlplane.storage.location import Location, Postgres

_LOCK = 0x666C656574
"""Who holds this lock of the database upgrades it; the number says "fleet"."""

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


def upgrade(location: Location, revision: str = "head") -> tuple[str | None, str]:
    """Upgrade a database, making SQLite's file where there is none.

    Returns (revision before, revision after). All steps are one transaction; of several processes
    that upgrade at once one does it. Raises ``DatabaseUnusableError``, ``NewerDatabaseError`` among them.
    """
    engine = _postgresql(location) if isinstance(location, Postgres) else _sqlite(location)
    try:
        with engine.begin() as connection:
            if engine.dialect.name == POSTGRESQL:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            before = MigrationContext.configure(connection).get_current_revision()
            if before is not None and before not in revisions():
                raise NewerDatabaseError(
                    f"the database {_named(location)} has schema {before}, which this program "
                    f"(schema {head()}) does not know: it was written by a newer one. "
                    "Update fleetwright, or restore a backup"
                )
            command.upgrade(_config(connection), revision)
            after = MigrationContext.configure(connection).get_current_revision()
            if engine.dialect.name == POSTGRESQL:
                _go_on_counting(connection)
    except DBAPIError as error:
        raise DatabaseUnusableError(_advice(location, error)) from error
    finally:
        engine.dispose()
    return before, str(after)


def _named(location: Location) -> str:
    return str(location) if isinstance(location, Postgres) else location.name


def _advice(location: Location, error: DBAPIError) -> str:
    said = " ".join(str(error.orig).split())
    if isinstance(location, Postgres):
        return (
            f"database {location}: {said}: look whether the server runs, and who may log in and make tables"
        )
    return f"database {location}: {said}: free some disk, or put the file back from a backup"


def _postgresql(place: Postgres) -> Engine:
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(place.conninfo, connect_timeout=5, application_name="fleetwright"),
        poolclass=NullPool,
    )


def _sqlite(path: Path) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    _one_transaction(engine)
    return engine


def _go_on_counting(connection: Connection) -> None:
    """Let numbers of transactions go on where they were: in another server they begin anew."""
    if not inspect(connection).has_table("commit_counter"):
        return
    watched = [
        table
        for table in inspect(connection).get_table_names()
        if any(column["name"] == "revision" for column in inspect(connection).get_columns(table))
    ]
    for table in watched:
        connection.execute(
            text(
                "UPDATE commit_counter SET value = seen.last + 1 - pg_current_xact_id()::text::bigint "  # noqa: S608
                f"FROM (SELECT max(revision) AS last FROM {table}) AS seen "  # names of our own schema
                "WHERE seen.last >= commit_counter.value + pg_current_xact_id()::text::bigint"
            )
        )


def _one_transaction(engine: Engine) -> None:
    """Let BEGIN be sent: the driver's own handling commits before every CREATE and ALTER."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
