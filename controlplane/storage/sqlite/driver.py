"""The asynchronous SQLite connection, with one thread hop for each statement, or for many.

aiosqlite gives each connection a thread and hops there and back for making a
cursor, for executing, for fetching and for closing. Results here are small and
are always fetched whole, so one hop can do all four; a hop is most of what a
small statement costs (``docs/decisions`` has the measurement).

Where nothing but the database is waited for, ``Connection.run`` takes a whole
coroutine to the thread: in there each statement is executed where it is asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from time import perf_counter
from typing import Any, Self, TypeVar

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.observability.statements import Tally
from controlplane.storage import driver
from controlplane.storage.statements import Statements

Parameters = Sequence[Any] | Mapping[str, Any]

T = TypeVar("T")

Error = sqlite3.Error
"""What the database raises, as it comes from the driver."""


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
        await self._connection.count(tally, self._run, statement, parameters, False)
        return self

    async def executemany(self, statement: str, parameters: Sequence[Parameters]) -> Self:
        """Execute once for each of ``parameters``, in one hop."""
        tally = self._connection.statements.of_caller()
        await self._connection.count(tally, self._run, statement, parameters, True)
        return self

    def _run(self, statement: str, parameters: Any, many: bool) -> int:
        # In the connection's thread; the loop looks only after the hop back.
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
        return len(self._rows) if self.description else self.rowcount

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


@dataclass(slots=True)
class _Counted:
    """One statement that a tally is to be told of."""

    tally: Tally
    seconds: float = 0.0
    rows: int = 0
    failed: bool = False

    def add(self) -> None:
        """Tell it; in the event loop's thread."""
        if self.failed:
            self.tally.failures += 1
        else:
            self.tally.done(self.seconds, self.rows)


class Connection(aiosqlite.Connection):
    """A connection whose cursors need one hop, none inside of ``run``, and which counts what it is asked."""

    def __init__(self, open_file: Callable[[], sqlite3.Connection], statements: Statements) -> None:
        super().__init__(open_file, iter_chunk_size=64)
        self.statements = statements
        # What was counted inside of ``run``: tallies belong to the event loop's thread.
        self._counted: list[_Counted] = []

    def cursor(self) -> Any:
        """Return a cursor; nothing is asked of the thread yet."""
        return WholeResultCursor(self)

    @property
    def usable(self) -> bool:
        """Always true: a file does not go away from who has it open."""
        return True

    async def fetch(self, text: str, values: Parameters) -> list[Any]:
        """Execute and return all rows."""
        cursor = await WholeResultCursor(self).execute(text, values)
        return await cursor.fetchall()

    async def change(self, text: str, values: Parameters) -> int:
        """Execute and return how many rows it changed."""
        return (await WholeResultCursor(self).execute(text, values)).rowcount

    async def change_each(self, text: str, rows: Sequence[Parameters]) -> None:
        """Execute once for each of ``rows``."""
        await WholeResultCursor(self).executemany(text, rows)

    async def run(self, asking: Coroutine[Any, Any, T]) -> T:
        """Run ``asking`` to its end in the connection's thread and return what it does.

        It may wait for this connection and for nothing else, or a ``RuntimeError`` ends it; it must not
        touch what belongs to the event loop.
        """
        try:
            ended: T = await self._execute(_to_the_end, asking)  # type: ignore[no-untyped-call]
        finally:
            counted, self._counted = self._counted, []
            for one in counted:
                one.add()
        return ended

    async def commit(self) -> None:
        """Commit; on the writing connection this is the sync of the disk."""
        await self.count(self.statements.commit, _no_rows, self._conn.commit)

    async def rollback(self) -> None:
        """Roll back; every snapshot that was read ends so."""
        await self.count(self.statements.rollback, _no_rows, self._conn.rollback)

    async def count(self, tally: Tally, function: Callable[..., int], *arguments: Any) -> None:
        """Let the thread call ``function``, which returns a number of rows, and count it in ``tally``."""
        inside = get_ident() == self._thread.ident
        try:
            if inside:
                seconds, rows = _timed(function, arguments)
            else:
                seconds, rows = await self._execute(_timed, function, arguments)  # type: ignore[no-untyped-call]
        except Exception:
            self._note(_Counted(tally, failed=True), inside)
            raise
        self._note(_Counted(tally, seconds, rows), inside)

    def _note(self, counted: _Counted, inside: bool) -> None:
        if inside:
            self._counted.append(counted)
        else:
            counted.add()


def _timed(function: Callable[..., int], arguments: Sequence[Any]) -> tuple[float, int]:
    began = perf_counter()
    rows = function(*arguments)
    return perf_counter() - began, rows


def _no_rows(end: Callable[[], None]) -> int:
    end()
    return 0


def _to_the_end(asking: Coroutine[Any, Any, T]) -> T:
    try:
        asking.send(None)
    except StopIteration as ended:
        value: T = ended.value
        return value
    asking.close()
    raise RuntimeError("in the thread of a connection, something else than the connection was waited for")


def connect(path: Path, statements: Statements) -> Connection:
    """Return a connection to open by awaiting it. Transactions are begun by whoever uses it."""

    def open_file() -> sqlite3.Connection:
        # The driver's own transaction handling breaks savepoints.
        return sqlite3.connect(path, isolation_level=None, cached_statements=256)

    connection = Connection(open_file, statements)
    # A process that ends by an error must not wait for connections that nobody closed.
    connection._thread.daemon = True
    return connection


def of(connection: AsyncConnection) -> Connection:
    """Return the driver's connection below one that SQLAlchemy made to SQLite."""
    own = driver.of(connection)
    assert isinstance(own, Connection)  # noqa: S101 - of SQLite
    return own
