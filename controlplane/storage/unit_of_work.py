"""One transaction, as use cases see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.prepared import Prepared
from controlplane.storage.schema import commit_counter

_COUNT = Prepared(
    update(commit_counter).values(value=commit_counter.c.value + 1).returning(commit_counter.c.value)
)


class TransactionLostError(Exception):
    """The database rolled the whole transaction back by itself; nothing of it stands."""


class UnitOfWork:
    """A transaction in progress, and what must happen once it is durable.

    Stores take it as their first argument. It is opened by
    ``Database.unit_of_work`` or by the writer, never by a store.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._revision: int | None = None
        self._after_commit: list[Callable[[], None]] = []

    async def revision(self) -> int:
        """Return the number of this transaction, which every watched row that it writes carries.

        Numbers grow in the order of commits, so a watcher that has seen number n
        misses nothing by asking for rows above n. On SQLite a counter gives that,
        because one transaction writes at a time.
        """
        if self._revision is None:
            self._revision = int((await _COUNT.rows(self.connection, {}))[0].value)
        return self._revision

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run ``action`` once the transaction is durable; it must not block and must not raise."""
        self._after_commit.append(action)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a part of the transaction that is undone alone when the block raises.

        Undone with it are the number that it took and what it put after the commit:
        the counter is rolled back too, and the next transaction would get the same
        number again. Raises ``TransactionLostError`` where the error ended the transaction.
        """
        revision, actions = self._revision, len(self._after_commit)
        savepoint = await self.connection.begin_nested()
        try:
            yield
        except BaseException as error:
            self._revision = revision
            del self._after_commit[actions:]
            if await self._lost():
                raise TransactionLostError from error
            await savepoint.rollback()
            raise
        await savepoint.commit()

    async def _lost(self) -> bool:
        # On some errors, a full disk among them, SQLite rolls the whole transaction
        # back by itself (sqlite.org/lang_transaction.html); what followed would be
        # committed without what came before.
        raw = (await self.connection.get_raw_connection()).driver_connection
        return raw is not None and getattr(raw, "in_transaction", True) is False

    def committed(self) -> None:
        """Run what waited for the commit. Called by who opened the transaction."""
        for action in self._after_commit:
            action()
