"""The asynchronous SQLite connection, with one thread hop for each statement.

aiosqlite gives each connection a thread and hops there and back for making a
cursor, for executing, for fetching and for closing. Results here are small and
are always fetched whole, so one hop can do all four; a hop is most of what a
small statement costs (``docs/decisions`` has the measurement).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import aiosqlite

from controlplane.observability.statements import Tally
from controlplane.storage.statements import Statements

Parameters = Sequence[Any]


class WholeResultCursor:
    """A cursor whose rows are all here once ``execute`` returns; what SQLAlchemy asks of a cursor."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Parameters = ()) -> Self:
        """Execute, fetch all rows and close, in one hop."""
        statements = self._connection.statements
        tally = statements.begin if statement.startswith("BEGIN") else statements.of_caller()
        try:
            seconds = await self._connection._execute(  # type: ignore[no-untyped-call]  # aiosqlite's own
                self._run, statement, parameters, False
            )
        except Exception:
            tally.failures += 1
            raise
        tally.done(seconds, len(self._rows) if self.description else self.rowcount)
        return self

    async def executemany(self, statement: str, parameters: Sequence[Parameters]) -> Self:
        """Execute once for each of ``parameters``, in one hop."""
        tally = self._connection.statements.of_caller()
        try:
            seconds = await self._connection._execute(  # type: ignore[no-untyped-call]
                self._run, statement, parameters, True
            )
        except Exception:
            tally.failures += 1
            raise
        tally.done(seconds, self.rowcount)
        return self

    def _run(self, statement: str, parameters: Any, many: bool) -> float:
        # In the connection's thread; the loop looks only after the hop back.
        began = perf_counter()
        cursor = self._connection._conn.cursor()
        try:
            if many:
                cursor.executemany(statement, parameters)
            else:
                cursor.execute(statement, parameters)
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else []
            self.rowcount = cursor.rowcount
            self.lastrowid = cursor.lastrowid
        finally:
            cursor.close()
        return perf_counter() - began

    async def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows, self._rows = self._rows, []
        return rows

    async def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._rows.pop(0) if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return at most ``size`` of the rows that are left."""
        count = size or self.arraysize
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    async def close(self) -> None:
        """Forget the rows; the database's cursor is closed already."""
        self._rows = []


class Connection(aiosqlite.Connection):
    """A connection whose cursors need one hop, and which counts what it is asked."""

    def __init__(self, open_file: Callable[[], sqlite3.Connection], statements: Statements) -> None:
        super().__init__(open_file, iter_chunk_size=64)
        self.statements = statements

    def cursor(self) -> Any:
        """Return a cursor; nothing is asked of the thread yet."""
        return WholeResultCursor(self)

    async def commit(self) -> None:
        """Commit; on the writing connection this is the sync of the disk."""
        await self._end(self.statements.commit, self._conn.commit)

    async def rollback(self) -> None:
        """Roll back; every snapshot that was read ends so."""
        await self._end(self.statements.rollback, self._conn.rollback)

    async def _end(self, tally: Tally, end: Callable[[], None]) -> None:
        try:
            seconds = await self._execute(_timed, end)  # type: ignore[no-untyped-call]
        except Exception:
            tally.failures += 1
            raise
        tally.done(seconds, 0)


def _timed(function: Callable[[], None]) -> float:
    began = perf_counter()
    function()
    return perf_counter() - began


def connect(path: Path, statements: Statements) -> Connection:
    """Return a connection to open by awaiting it. Transactions are begun by whoever uses it."""

    def open_file() -> sqlite3.Connection:
        # The driver's own transaction handling breaks savepoints.
        return sqlite3.connect(path, isolation_level=None, cached_statements=256)

    connection = Connection(open_file, statements)
    # A process that ends by an error must not wait for connections that nobody closed.
    connection._thread.daemon = True
    return connection
