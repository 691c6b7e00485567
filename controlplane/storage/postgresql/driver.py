"""The asynchronous PostgreSQL connection (psycopg 3), counted as the one of SQLite is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Self

import psycopg
from psycopg.adapt import Buffer
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
    return connection


def of(connection: AsyncConnection) -> Connection:
    """Return the driver's connection below one that SQLAlchemy made to PostgreSQL."""
    own = driver.of(connection)
    assert isinstance(own, Connection)  # noqa: S101 - of PostgreSQL
    return own
