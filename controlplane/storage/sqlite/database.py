"""SQLite: one connection that writes and several that read.

SQLite allows one writer at a time, so the write engine has a pool of one and
waiting is done in our queue, where it is fair and visible, not in SQLite's
busy loop. Readers see the last commit (WAL) and are never held up by the writer.
"""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controlplane.errors import ServiceError, Unavailable
from controlplane.observability.metrics import Metrics
from controlplane.storage.database import Database, make_engine
from controlplane.storage.sqlite import filling
from controlplane.storage.sqlite.driver import connect, of
from controlplane.storage.statements import Statements

T = TypeVar("T")

READERS = 4
"""Reading connections; each is a thread of the driver, and two cores do not feed more."""

# Durable means after a power cut: WAL with synchronous=FULL syncs the log at every commit.
_WRITER_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
    "PRAGMA cache_size=-65536",
    "PRAGMA wal_autocheckpoint=4000",
)
_READER_PRAGMAS = ("PRAGMA query_only=ON", "PRAGMA busy_timeout=10000", "PRAGMA cache_size=-16384")
# SQLite's own result strings (sqlite3_errstr).
_UNWRITABLE = ("disk is full", "readonly database", "disk I/O error", "database is locked")


def _prepare(engine: AsyncEngine, pragmas: tuple[str, ...], begin: str, full: Path | None = None) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        if full is not None:
            connection.exec_driver_sql(filling.limit(full))
        connection.exec_driver_sql(begin)


def _engine(path: Path, size: int, statements: Statements) -> AsyncEngine:
    async def make() -> aiosqlite.Connection:
        return await connect(path, statements)

    return make_engine("sqlite+aiosqlite://", make, size)


class SqliteDatabase(Database):
    """The embedded database of one data folder.

    What waits for its connection alone runs in the connection's thread, in one hop. The last
    connection to close folds the log into the database.
    """

    def __init__(self, path: Path, metrics: Metrics | None = None) -> None:
        self.path = path
        metrics = metrics or Metrics()
        write_engine = _engine(path, 1, Statements(metrics, "write"))
        read_engine = _engine(path, READERS, Statements(metrics, "read"))
        super().__init__(write_engine, read_engine, metrics)
        _prepare(write_engine, _WRITER_PRAGMAS, "BEGIN IMMEDIATE", filling.switch_of(path))
        _prepare(read_engine, _READER_PRAGMAS, "BEGIN")

    def refusal(self, error: DBAPIError) -> ServiceError | None:
        """Return the refusal for a database that cannot be written, or None where the error is another."""
        text = str(error.orig)
        if not isinstance(error, OperationalError) and "full" not in text:
            return None
        for sign in _UNWRITABLE:
            if sign in text:
                return Unavailable("UNAVAILABLE", f"the database cannot be written: {sign}")
        if isinstance(error.orig, OSError) and error.orig.errno == errno.ENOSPC:
            return Unavailable("UNAVAILABLE", "the database cannot be written: disk is full")
        return None

    async def _run(self, connection: AsyncConnection, asking: Coroutine[Any, Any, T]) -> T:
        return await of(connection).run(asking)
