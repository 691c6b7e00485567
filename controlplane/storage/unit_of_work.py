"""One transaction, as use cases see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage import driver
from controlplane.storage.backends import POSTGRESQL
from controlplane.storage.prepared import Prepared
from controlplane.storage.schema import commit_counter

_COUNT = Prepared(
    update(commit_counter).values(value=commit_counter.c.value + 1).returning(commit_counter.c.value)
)
# PostgreSQL has numbers of its own. The counter's row, which nobody changes there, is what a restore into
# another server adds to them, for its numbers begin anew (storage.migrate).
_TRANSACTION = Prepared(
    select((commit_counter.c.value + literal_column("pg_current_xact_id()::text::bigint")).label("value"))
)
_HORIZON = Prepared(
    select(
        (
            commit_counter.c.value + literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        ).label("value")
    )
)


class TransactionLostError(Exception):
    """The database rolled the whole transaction back by itself; nothing of it stands."""


Gathered = Callable[["UnitOfWork", list[Any]], Coroutine[Any, Any, None]]
"""Writes all that was gathered for it in a transaction."""


class UnitOfWork:
    """A transaction in progress, what is written at its end, and what must happen once it is durable.

    Stores take it as their first argument. It is opened by
    ``Database.unit_of_work`` or by the writer, never by a store.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._revision: int | None = None
        self._before_commit: list[tuple[Gathered, Sequence[Any]]] = []
        self._after_commit: list[Callable[[], None]] = []

    async def revision(self) -> int:
        """Return the number of this transaction, which every watched row that it writes carries.

        On SQLite a counter gives it, and numbers grow in the order of commits, because one transaction
        writes at a time: a watcher that has seen number n misses nothing by asking for rows above n. On
        PostgreSQL it is the transaction's own number; those of transactions that run at the same time
        commit in any order, so a watcher reads up to the ``horizon`` only.
        """
        if self._revision is None:
            number = _TRANSACTION if self.connection.dialect.name == POSTGRESQL else _COUNT
            self._revision = int((await number.rows(self.connection, {}))[0].value)
        return self._revision

    def before_commit(self, write: Gathered, items: Sequence[Any]) -> None:
        """Give ``items`` to ``write`` just before the commit, with all that was gathered for it till then.

        So what many parts of a transaction have to say goes into one statement. It must not fail for
        one of the items: the whole transaction would.
        """
        if items:
            self._before_commit.append((write, items))

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run ``action`` once the transaction is durable; it must not block and must not raise."""
        self._after_commit.append(action)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a part of the transaction that is undone alone when the block raises.

        Undone with it are the number that it took and what it put before and after the
        commit: the counter is rolled back too, and the next transaction would get the same
        number again. Raises ``TransactionLostError`` where the error ended the transaction.
        """
        revision, gathered, actions = self._revision, len(self._before_commit), len(self._after_commit)
        savepoint = await self.connection.begin_nested()
        try:
            yield
        except BaseException as error:
            self._revision = revision
            del self._before_commit[gathered:]
            del self._after_commit[actions:]
            if await self._lost():
                raise TransactionLostError from error
            await savepoint.rollback()
            raise
        await savepoint.commit()

    async def _lost(self) -> bool:
        # On some errors, a full disk among them, SQLite rolls the whole transaction
        # back by itself (sqlite.org/lang_transaction.html); what followed would be
        # committed without what came before. A connection that broke has lost all too.
        return not driver.of(self.connection).in_transaction

    async def complete(self) -> None:
        """Write what was gathered. Called by who opened the transaction, before it commits."""
        while self._before_commit:
            gathered, self._before_commit = self._before_commit, []
            found: dict[Gathered, list[Any]] = {}
            for write, items in gathered:
                found.setdefault(write, []).extend(items)
            for write, all_items in found.items():
                await write(self, all_items)

    def committed(self) -> None:
        """Run what waited for the commit. Called by who opened the transaction."""
        for action in self._after_commit:
            action()


async def horizon(connection: AsyncConnection) -> int:
    """Return the number below which every transaction of PostgreSQL is over, as this snapshot sees it."""
    return int((await _HORIZON.rows(connection, {}))[0].value)
