"""The asynchronous PostgreSQL connection (psycopg 3), counted as the one of SQLite is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Self

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumper
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.observability.statements import Tally
from controlplane.storage import driver
from controlplane.storage.postgresql import binary
from controlplane.storage.statements import Statements

_NO_TEXT = "\N{REPLACEMENT CHARACTER}"


class _TextDumper(StrDumper):
    """PostgreSQL keeps no NUL in a text; what an agent says must not fail for one, so it is marked."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", _NO_TEXT) if "\0" in obj else obj)


class _ListDumper(Dumper):
    """Lists of values of one kind, as the text of an array; what the kind is says the statement's cast.

    Set-based statements take a list for each column. The driver's own dumper asks each element what it
    is, which costs more than all the rest of such a statement here.
    """

    def dump(self, obj: list[Any]) -> Buffer | None:
        kind = next((type(value) for value in obj if value is not None), str)
        # A number or a text with a name, of an enumeration, is written as what it is.
        element = next((_ELEMENTS[one] for one in kind.__mro__ if one in _ELEMENTS), None)
        if element is None:
            raise psycopg.DataError(f"no array is made of values of type {kind.__name__}")
        return f"{{{','.join(['NULL' if value is None else element(value) for value in obj])}}}".encode()


def _quoted(value: str) -> str:
    if "\0" in value:
        value = value.replace("\0", _NO_TEXT)
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


_ELEMENTS: dict[type, Callable[[Any], str]] = {
    str: _quoted,
    int: int.__repr__,
    bool: bool.__repr__,
    float: repr,
    bytes: lambda value: f'"\\\\x{value.hex()}"',
}


class Cursor(psycopg.AsyncCursor[Any]):
    """A cursor that counts what it executes, for whoever awaits it."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute."""
        connection: Any = self.connection
        await self._counted(connection.statements.of_caller(), super().execute(query, params, **options))
        return self

    async def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        """Execute for each of ``params_seq``."""
        connection: Any = self.connection
        tally = connection.statements.of_caller()
        await self._counted(tally, super().executemany(query, params_seq, **options))

    async def _counted(self, tally: Tally, execution: Any) -> None:
        began = perf_counter()
        try:
            await execution
        except Exception:
            tally.failures += 1
            raise
        tally.done(perf_counter() - began, self.rowcount)


class Connection(psycopg.AsyncConnection[Any]):
    """A connection that counts what it is asked."""

    statements: Statements

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; False too on a connection that broke."""
        return not self.closed and self.info.transaction_status is not TransactionStatus.IDLE

    @property
    def usable(self) -> bool:
        """Whether the connection still leads to the server."""
        return not self.closed

    async def fetch(self, text: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute and return all rows."""
        # What comes back in binary needs no parsing: bytes would come as hexadecimal digits otherwise.
        cursor = self.cursor(binary=True)
        await cursor.execute(text, values)
        rows: Sequence[Sequence[Any]] = await cursor.fetchall()
        return rows

    async def change(self, text: str, values: Mapping[str, Any]) -> int:
        """Execute and return how many rows it changed."""
        cursor = self.cursor()
        await cursor.execute(text, values)
        return cursor.rowcount

    async def change_each(self, text: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute once for each of ``rows``, in one round trip."""
        await self.cursor().executemany(text, rows)

    async def copy_in(self, text: str, rows: bytes, count: int) -> None:
        """Send ``count`` rows, as ``binary`` makes them, by COPY; counted as one statement."""
        tally = self.statements.of_caller()
        began = perf_counter()
        try:
            async with self.cursor().copy(text) as copy:
                await copy.write(binary.HEADER + rows + binary.TRAILER)
        except Exception:
            tally.failures += 1
            raise
        tally.done(perf_counter() - began, count)

    async def commit(self) -> None:
        """Commit: the server has it on its disk."""
        await self._end(self.statements.commit, super().commit())

    async def rollback(self) -> None:
        """Roll back; every snapshot that was read ends so."""
        await self._end(self.statements.rollback, super().rollback())

    @staticmethod
    async def _end(tally: Tally, ending: Any) -> None:
        began = perf_counter()
        try:
            await ending
        except Exception:
            tally.failures += 1
            raise
        tally.done(perf_counter() - began, -1)


async def connect(conninfo: str, statements: Statements, **options: Any) -> Connection:
    """Connect. ``options`` are those of libpq, which stand above what ``conninfo`` says."""
    connection = await Connection.connect(conninfo, cursor_factory=Cursor, **options)
    connection.statements = statements
    connection.adapters.register_dumper(str, _TextDumper)
    connection.adapters.register_dumper(list, _ListDumper)
    return connection


def of(connection: AsyncConnection) -> Connection:
    """Return the driver's connection below one that SQLAlchemy made to PostgreSQL."""
    own = driver.of(connection)
    assert isinstance(own, Connection)  # noqa: S101 - of PostgreSQL
    return own
