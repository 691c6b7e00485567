"""Connections: one that writes and several that read.

SQLite allows one writer at a time, so the write engine has a pool of one and
waiting is done in our queue, where it is fair and visible, not in SQLite's
busy loop. Readers see the last commit (WAL) and are never held up by the writer.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import structlog
from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from controlplane.errors import Unavailable
from controlplane.observability.metrics import Metrics
from controlplane.storage import driver
from controlplane.storage.statements import Statements
from controlplane.storage.unit_of_work import UnitOfWork

T = TypeVar("T")

_log = structlog.get_logger(__name__)

READERS = 4
"""Reading connections; each is a thread of the driver, and two cores do not feed more."""

RETURN_SECONDS = 10
"""How long an end waits for connections in use; a statement takes milliseconds."""

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


def _prepare(engine: AsyncEngine, pragmas: tuple[str, ...], begin: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def _engine(path: Path, size: int, statements: Statements) -> AsyncEngine:
    return create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        async_creator=lambda: driver.connect(path, statements),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=30,
        # Whoever takes a connection commits or rolls back, always: a reset would be one hop more.
        pool_reset_on_return=None,
        # Values of statements are scripts, environments and nonces; errors reach logs.
        hide_parameters=True,
    )


class _Pool:
    """The connections of one engine: who waits for one, and who still has one at the end."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics, name: str) -> None:
        self.engine = engine
        self._taken = 0
        self._returned = asyncio.Event()
        pool: Any = engine.pool
        metrics.database_connections.labels(name, "idle").set_function(pool.checkedin)
        metrics.database_connections.labels(name, "used").set_function(pool.checkedout)
        self._waited = metrics.database_wait_seconds.labels(name).observe

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Take a connection for the length of a block."""
        began = perf_counter()
        self._taken += 1
        try:
            connection = await self.engine.connect()
            try:
                self._waited(perf_counter() - began)
                yield connection
            finally:
                await _to_its_end(connection.close())
        finally:
            self._taken -= 1
            self._returned.set()

    async def close(self) -> None:
        """Close every connection, once it was returned."""
        # SQLAlchemy leaves those open that are in use meanwhile: a call that ends with the server has one.
        try:
            async with asyncio.timeout(RETURN_SECONDS):
                while self._taken:
                    self._returned.clear()
                    await self._returned.wait()
        except TimeoutError:
            _log.warning("connections to the database are still in use", connections=self._taken)
        await self.engine.dispose()


class Database:
    """The embedded database of one data folder; what it is asked is counted in ``metrics``."""

    def __init__(self, path: Path, metrics: Metrics | None = None) -> None:
        self.path = path
        metrics = metrics or Metrics()
        self.write_engine = _engine(path, 1, Statements(metrics, "write"))
        self.read_engine = _engine(path, READERS, Statements(metrics, "read"))
        self._writing = _Pool(self.write_engine, metrics, "write")
        self._reading = _Pool(self.read_engine, metrics, "read")
        _prepare(self.write_engine, _WRITER_PRAGMAS, "BEGIN IMMEDIATE")
        _prepare(self.read_engine, _READER_PRAGMAS, "BEGIN")

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[UnitOfWork]:
        """Open a transaction that commits when the block ends and rolls back when it raises.

        Raises ``Unavailable`` where the database cannot be written (full or failing disk).
        """
        try:
            async with self._writing.connection() as connection:
                await connection.begin()
                work = UnitOfWork(connection)
                try:
                    yield work
                except BaseException:
                    await _to_its_end(connection.rollback())
                    raise
                await _to_its_end(_committed(work, _commit(connection)))
        except DBAPIError as error:
            raise cannot_write(error) or error from error

    async def transact(self, body: Callable[[UnitOfWork], Coroutine[Any, Any, T]]) -> T:
        """Return what ``body`` does in a transaction of its own; all of it takes one hop between threads.

        It runs in the thread of the connection, so it may wait for its unit of work and for nothing
        else. Raises as ``unit_of_work``.
        """
        try:
            async with self._writing.connection() as connection:
                work = UnitOfWork(connection)
                doing = driver.of(connection).run(_whole(connection, body(work)))
                return await _to_its_end(_committed(work, doing))
        except DBAPIError as error:
            raise cannot_write(error) or error from error

    async def read(self, question: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        """Return the answer of ``question`` on a read-only snapshot, in one hop as ``transact``."""
        async with self._reading.connection() as connection:
            return await _to_its_end(driver.of(connection).run(_snapshot(connection, question)))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a read-only snapshot."""
        async with self._reading.connection() as connection:
            yield connection

    async def close(self) -> None:
        """Close every connection. The last one to close folds the log into the database."""
        await self._reading.close()
        await self._writing.close()


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except BaseException:
        # SQLite keeps a transaction open whose commit failed, and SQLAlchemy takes it for ended.
        await driver.of(connection).rollback()
        raise


async def _committed(work: UnitOfWork, committing: Coroutine[Any, Any, T]) -> T:
    ended = await committing
    work.committed()
    return ended


async def _whole(connection: AsyncConnection, body: Coroutine[Any, Any, T]) -> T:
    try:
        ended = await body
    except BaseException:
        await connection.rollback()
        raise
    await _commit(connection)
    return ended


async def _snapshot(
    connection: AsyncConnection, question: Callable[[AsyncConnection], Coroutine[Any, Any, T]]
) -> T:
    try:
        return await question(connection)
    finally:
        await connection.rollback()


async def _to_its_end(ending: Coroutine[Any, Any, T]) -> T:
    """Await ``ending`` to its end even if the caller is cancelled meanwhile, and let that be known after.

    A call may be cancelled at any moment, by its deadline or its client. What is
    committed then must still tell those who wait for the commit.
    """
    task = asyncio.ensure_future(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # noqa: BLE001, S110 # raised below, by result()
            pass
    ended = task.result()
    if cancelled is not None:
        raise cancelled
    return ended


def cannot_write(error: DBAPIError) -> Unavailable | None:
    """Return the refusal for a database that cannot be written, or None where the error is another.

    The texts are SQLite's own result strings (``sqlite3_errstr``).
    """
    text = str(error.orig)
    if not isinstance(error, OperationalError) and "full" not in text:
        return None
    for sign in ("disk is full", "readonly database", "disk I/O error", "database is locked"):
        if sign in text:
            return Unavailable("UNAVAILABLE", f"the database cannot be written: {sign}")
    if isinstance(error.orig, OSError) and error.orig.errno == errno.ENOSPC:
        return Unavailable("UNAVAILABLE", "the database cannot be written: disk is full")
    return None
