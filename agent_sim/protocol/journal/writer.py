"""The one thread that touches the journal's database, so that the event loop never waits for a disk.

What is asked for while a commit is under way is committed together with the
next one: many attempts that arrive in a burst share one fsync.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from agent_sim.protocol.errors import JournalError

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]

_MAX_GROUP = 256
_Item = tuple[Operation, "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Writer:
    """Runs operations on a connection in their order, each alone in a savepoint, many in a transaction."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"journal {name}", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``operation`` and return what it returned, once it is committed.

        Raises JournalError where it failed or could not be committed. Being
        cancelled does not undo it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((operation, future, loop))
        try:
            return await future
        except sqlite3.Error as error:
            raise JournalError(f"the journal cannot be written: {error}; check its disk") from error

    async def close(self) -> None:
        """Commit what is pending, end the thread and close the connection."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._commit(group)
        finally:
            self._connection.close()

    def _next_group(self) -> list[_Item] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while len(group) < _MAX_GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._queue.put(None)
                break
            group.append(item)
        return group

    def _commit(self, group: list[_Item]) -> None:
        outcomes: list[tuple[_Item, Any, Exception | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [(item, *self._one(item[0])) for item in group]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            outcomes = [(item, None, error) for item in group]
        for (_, future, loop), value, failure in outcomes:
            # A loop that has ended wants no answer: the operation is committed all the same.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future, value, failure)

    def _one(self, operation: Operation) -> tuple[Any, Exception | None]:
        self._connection.execute("SAVEPOINT one")
        try:
            value = operation(self._connection)
        except (sqlite3.Error, KeyError) as error:
            if not self._connection.in_transaction:
                raise
            self._connection.execute("ROLLBACK TO one")
            self._connection.execute("RELEASE one")
            return None, error
        self._connection.execute("RELEASE one")
        return value, None


def _resolve(future: asyncio.Future[Any], value: Any, failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(value)
    else:
        future.set_exception(failure)
