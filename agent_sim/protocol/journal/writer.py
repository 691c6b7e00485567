"""The one thread that touches the journal's database, so that the event loop never waits for a disk.

What is asked for while a commit is under way is committed together with the
next one: many attempts that arrive in a burst share one fsync. On a full disk each
operation is tried alone, and room is made for it as far as it is worth.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from agent_sim.protocol.errors import JournalError, JournalFullError
from agent_sim.protocol.journal.reserve import Reserve, out_of_room

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]

_MAX_GROUP = 256
_FOR_SHEDDING = 0.5
"""Share of the reserve that telemetry leaves. What it takes lets the log be written back into the file, and
with that it is the telemetry's own space that is used again."""


class Worth(enum.IntEnum):
    """What an operation is worth on a full disk."""

    NOTHING = 0
    """It fails: work that is not taken, a read."""
    TELEMETRY = 1
    """The oldest telemetry makes room for it: newer telemetry, output."""
    RESERVE = 2
    """The reserve does too: a result, and whatever leads to one being reported."""


@dataclass(frozen=True, slots=True)
class _Item:
    operation: Operation
    worth: Worth
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Writer:
    """Runs operations on a connection in their order, each alone in a savepoint, many in a transaction.

    ``shed`` removes some of what may be lost, in the transaction that it is called
    in, and returns how much that was. ``on_full`` is called in the thread of the
    event loop each time that there was no room.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        name: str,
        reserve: Reserve,
        shed: Callable[[sqlite3.Connection], int],
        on_full: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._reserve = reserve
        self._shed = shed
        self._on_full = on_full
        self._closed = False
        self.shed_points = 0
        """How much ``shed`` has removed for good, since the beginning."""
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"journal {name}", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[sqlite3.Connection], T], worth: Worth = Worth.NOTHING) -> T:
        """Run ``operation`` and return what it returned, once it is committed.

        Raises JournalFullError where the disk had no room for it, JournalError where it
        failed otherwise. Being cancelled does not undo it. It may be called again
        where room had to be made.
        """
        if self._closed:
            raise JournalError("the journal is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Item(operation, worth, future, loop))
        try:
            return await future
        except sqlite3.Error as error:
            if out_of_room(error):
                raise JournalFullError(f"the journal has no room: {error}; free space on its disk") from error
            raise JournalError(f"the journal cannot be written: {error}; check its disk") from error

    async def close(self) -> None:
        """Commit what is pending, end the thread and close the connection."""
        self._closed = True
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
        for item, value, failure in self._together(group):
            answer = value, failure
            if out_of_room(failure):
                _in_loop(item.loop, self._on_full)
                answer = self._with_room_made(item)
            _in_loop(item.loop, _resolve, item.future, *answer)

    def _together(self, group: list[_Item]) -> list[tuple[_Item, Any, Exception | None]]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [(item, *self._one(item.operation)) for item in group]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return [(item, None, error) for item in group]
        return outcomes

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

    def _with_room_made(self, item: _Item) -> tuple[Any, Exception | None]:
        failure: Exception | None = None
        for _ in self._more_room(item.worth):
            value, failure = self._alone(item.operation)
            if not out_of_room(failure):
                return value, failure
        return None, failure

    def _alone(self, operation: Operation) -> tuple[Any, Exception | None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            value = operation(self._connection)
            self._connection.execute("COMMIT")
        except (sqlite3.Error, KeyError) as error:
            self._roll_back()
            return None, error
        return value, None

    def _more_room(self, worth: Worth) -> Iterator[None]:
        """Yield each time that there may be more room than before; what costs least comes first."""
        self._checkpoint()
        yield
        while worth >= Worth.TELEMETRY:
            removed, failure = self._alone(self._shed)
            if removed:
                self.shed_points += removed
            elif worth >= Worth.RESERVE:
                if not self._reserve.release():
                    return
            elif not (
                out_of_room(failure) and self._reserve.share > _FOR_SHEDDING and self._reserve.release()
            ):
                return
            self._checkpoint()
            if removed or worth >= Worth.RESERVE:
                yield

    def _checkpoint(self) -> None:
        """Let the log start from its beginning: the space that it has is then written again."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    # A loop that has ended wants no answer: the operation is committed all the same.
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)


def _resolve(future: asyncio.Future[Any], value: Any, failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(value)
    else:
        future.set_exception(failure)
