"""Looking at a database without changing it, whatever state it is in and whether a server uses it or not.

SQLite may leave an empty log and its index beside it, with the database's owner.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from controlplane.storage.location import Location, Postgres
from controlplane.storage.postgresql import inspection as postgresql
from controlplane.storage.unreadable import DatabaseUnreadableError

CHECK_LIMIT = timedelta(seconds=20)
"""How long ``find_damage`` looks; it reads every page."""

_STEPS = 10_000
# Tables with a column that says when something happened by the server's clock.
_STAMPED = (
    ("agents", "update_time"),
    ("certificates", "issue_time"),
    ("identities", "create_time"),
    ("enrollment_tokens", "create_time"),
)


class CheckTooLongError(Exception):
    """The database is larger than can be checked in the time that was given."""


def schema_version(location: Location) -> str | None:
    """Return the revision of the schema of a database; None where it has none yet."""
    if isinstance(location, Postgres):
        return postgresql.schema_version(location)
    with _reading(location) as connection:
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if tables else None
    return None if row is None else str(row[0])


def history(location: Location) -> bytes:
    """Return what tells the history that a database is in from others: each restore begins another one."""
    if isinstance(location, Postgres):
        return postgresql.history(location)
    with _reading(location) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0]).to_bytes(4, "big", signed=True)


def find_damage(path: Path, limit: timedelta = CHECK_LIMIT) -> str:
    """Return the first damage that SQLite's quick check finds, empty where there is none.

    Raises ``CheckTooLongError`` after ``limit``.
    """
    ends = monotonic() + limit.total_seconds()
    with _reading(path) as connection:
        connection.set_progress_handler(lambda: int(monotonic() > ends), _STEPS)
        try:
            said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise CheckTooLongError from error
            raise
    return "" if said == "ok" else said


def newest_instant(location: Location) -> int | None:
    """Return the newest time, in microseconds, that the server wrote down; None where there is none."""
    if isinstance(location, Postgres):
        return postgresql.newest_instant(location, _STAMPED)
    newest: list[int] = []
    with _reading(location) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in found}
        for table, column in _STAMPED:
            if table in tables:
                row = connection.execute(f"SELECT max({column}) FROM {table}").fetchone()  # noqa: S608 # constants
                newest += [int(value) for value in row if value is not None]
    return max(newest, default=None)


def sqlite_version() -> str:
    """Return the version of the SQLite that this program uses."""
    return sqlite3.sqlite_version


def log_bytes(path: Path) -> int:
    """Return the size of the write-ahead log of a database, 0 where there is none."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database read-only. Raises ``DatabaseUnreadableError`` for whatever SQLite does not like."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise DatabaseUnreadableError(str(error)) from error
