"""Looking at a PostgreSQL database without changing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from controlplane.storage.location import Postgres
from controlplane.storage.unreadable import DatabaseUnreadableError

_SETTINGS = ("server_version", "fsync", "full_page_writes", "synchronous_commit", "max_connections")


def schema_version(place: Postgres) -> str | None:
    """Return the revision of the schema of a database; None where it has none yet."""
    with _reading(place) as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def history(place: Postgres) -> bytes:
    """Return what tells the history that a database is in from others.

    A copy that was restored is another database, in this server or another one; one that was wound
    back in time is on another timeline.
    """
    with _reading(place) as connection:
        row = connection.execute(
            "SELECT (pg_control_system()).system_identifier, (pg_control_checkpoint()).timeline_id, "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()
    return repr(row).encode()


def settings(place: Postgres) -> Mapping[str, str]:
    """Return what the server says of its version, and of what makes a commit durable."""
    with _reading(place) as connection:
        found = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(_SETTINGS)]
        )
        return {str(name): str(setting) for name, setting in found}


def newest_instant(place: Postgres, stamped: Sequence[tuple[str, str]]) -> int | None:
    """Return the newest of the times in these columns of tables, None where there is none."""
    newest: list[int] = []
    with _reading(place) as connection:
        for table, column in stamped:
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
                continue
            question = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(column), sql.Identifier(table))
            row = connection.execute(question).fetchone()
            newest += [int(value) for value in row or () if value is not None]
    return max(newest, default=None)


@contextmanager
def _reading(place: Postgres) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(place.conninfo, connect_timeout=5, autocommit=True) as connection:
            yield connection
    except psycopg.Error as error:
        raise DatabaseUnreadableError(" ".join(str(error).split())) from error
