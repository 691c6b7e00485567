"""Connections: what use cases, rooms and the writer ask a database by, whichever it is.

Writing has its connections and reading has others, so that readers are never held up by
writers. ``sqlite/database.py`` and ``postgresql/database.py`` say how many, and what an error means.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from controlplane.errors import ServiceError, Unavailable
from controlplane.observability.metrics import Metrics
from controlplane.storage import driver
from controlplane.storage.unit_of_work import UnitOfWork

T = TypeVar("T")

_log = structlog.get_logger(__name__)

RETURN_SECONDS = 10
"""How long an end waits for connections in use; a statement takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """What was read in the order of commits.

    ``behind`` says that later rows are there which cannot be told of yet: a transaction that came before
    them may still commit.
    """

    rows: Sequence[T]
    behind: bool = False


def make_engine(driver_url: str, connect: Callable[[], Coroutine[Any, Any, Any]], size: int) -> AsyncEngine:
    """Return an engine of ``size`` connections, made by ``connect``; the URL names dialect and driver."""
    return create_async_engine(
        driver_url,
        async_creator=connect,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=30,
        # Whoever takes a connection commits or rolls back, always: a reset would be one trip more.
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
                await to_its_end(self._give_back(connection))
        finally:
            self._taken -= 1
            self._returned.set()

    async def _give_back(self, connection: AsyncConnection) -> None:
        if connection.invalidated or not driver.of(connection).usable:
            # What broke this one broke those that wait in the pool.
            with suppress(DBAPIError):
                await connection.invalidate()
            await connection.close()
            await self.engine.dispose()
            return
        await connection.close()

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


class Database(ABC):
    """A site's database; what it is asked is counted in ``metrics``."""

    def __init__(self, write_engine: AsyncEngine, read_engine: AsyncEngine, metrics: Metrics) -> None:
        self.dialect = write_engine.dialect.name
        self.write_engine = write_engine
        self.read_engine = read_engine
        self._writing = _Pool(write_engine, metrics, "write")
        self._reading = _Pool(read_engine, metrics, "read")

    @abstractmethod
    def refusal(self, error: DBAPIError) -> ServiceError | None:
        """Return what to tell a caller where nothing is wrong with what was asked, else None.

        The database cannot be reached or written, or others changed the same at the same moment.
        """

    def is_transient(self, _error: DBAPIError) -> bool:
        """Return whether the same transaction, begun anew, may succeed at once."""
        return False

    def collided(self, _error: DBAPIError) -> bool:
        """Return whether another transaction has just written a key that this one was about to write.

        Done once more, it finds what the other one wrote. Never so where one writes at a time.
        """
        return False

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[UnitOfWork]:
        """Open a transaction that commits when the block ends and rolls back when it raises.

        Raises ``Unavailable`` where the database cannot be written (full or failing disk).
        """
        with self._refusing():
            async with self._writing.connection() as connection:
                await connection.begin()
                work = UnitOfWork(connection)
                try:
                    yield work
                    await work.complete()
                except BaseException:
                    await to_its_end(_undo(connection))
                    raise
                await to_its_end(_committed(work, _commit(connection)))

    async def transact(self, body: Callable[[UnitOfWork], Coroutine[Any, Any, T]]) -> T:
        """Return what ``body`` does in a transaction of its own.

        It may wait for its unit of work and for nothing else, and may be called again where the
        transaction must be begun anew. Raises as ``unit_of_work``.
        """
        with self._refusing():
            async with self._writing.connection() as connection:
                work = UnitOfWork(connection)
                doing = self._run(connection, _whole(connection, _completed(work, body(work))))
                return await to_its_end(_committed(work, doing))

    async def read(self, question: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        """Return the answer of ``question``, which waits for its connection alone, on a snapshot."""
        with self._refusing():
            async with self._reading.connection() as connection:
                return await to_its_end(self._run(connection, _snapshot(connection, question)))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a read-only snapshot."""
        with self._refusing():
            async with self._reading.connection() as connection:
                yield connection

    async def look(
        self,
        question: Callable[[AsyncConnection], Coroutine[Any, Any, Sequence[T]]],
        _revision: Callable[[T], int],
    ) -> Look[T]:
        """Return what ``question`` finds in the order of commits, up to where no other can come between.

        ``revision`` tells a row's ``UnitOfWork.revision``.
        """
        return Look(await self.read(question))

    async def close(self) -> None:
        """Close every connection."""
        await self._reading.close()
        await self._writing.close()

    async def _run(self, _connection: AsyncConnection, asking: Coroutine[Any, Any, T]) -> T:
        """Run what waits for ``connection`` alone."""
        return await asking

    def _refusing(self) -> _Refusing:
        return _Refusing(self)


class _Refusing:
    """Raises the refusal of a database's errors instead of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, DBAPIError):
            return
        refusal = self._database.refusal(error)
        if refusal is None and self._database.collided(error):
            refusal = Unavailable("UNAVAILABLE", "another call has just written the same; try again")
        if refusal is not None:
            raise refusal from error


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except BaseException:
        # SQLite keeps a transaction open whose commit failed, and SQLAlchemy takes it for ended.
        own = driver.of(connection)
        if own.in_transaction:
            await own.rollback()
        raise


async def _undo(connection: AsyncConnection) -> None:
    # Where the connection is gone there is nothing to undo, and what matters is the error that came first.
    with suppress(DBAPIError):
        await connection.rollback()


async def _committed(work: UnitOfWork, committing: Coroutine[Any, Any, T]) -> T:
    ended = await committing
    work.committed()
    return ended


async def _completed(work: UnitOfWork, body: Coroutine[Any, Any, T]) -> T:
    ended = await body
    await work.complete()
    return ended


async def _whole(connection: AsyncConnection, body: Coroutine[Any, Any, T]) -> T:
    try:
        ended = await body
    except BaseException:
        await _undo(connection)
        raise
    await _commit(connection)
    return ended


async def _snapshot(
    connection: AsyncConnection, question: Callable[[AsyncConnection], Coroutine[Any, Any, T]]
) -> T:
    try:
        return await question(connection)
    finally:
        await _undo(connection)


async def to_its_end(ending: Coroutine[Any, Any, T]) -> T:
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
