"""Watching a table in the order of commits.

A watched row carries the ``revision`` of the transaction that last wrote it
(``UnitOfWork.revision``). A watch sends what matches, then asks for rows above
the last revision it has seen, whenever it is woken or a slow poll is due. A row
that changes twice between two looks is seen once, in its last state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from controlplane.wakeups import WakeUps

POLL = timedelta(seconds=5)
"""A lost wake-up delays a watcher by at most this."""

PAGE = 500
"""Rows read at once; a watch of a large fleet must not hold it in memory."""

Row = TypeVar("Row")
Cursor = tuple[int, str]
"""(revision, id) of the last row seen: rows are read in this order."""


async def follow(
    wakeups: WakeUps,
    topic: str,
    start: Cursor,
    read: Callable[[Cursor, int], Awaitable[Sequence[Row]]],
    position: Callable[[Row], Cursor],
) -> AsyncIterator[Row | None]:
    """Yield every row above ``start`` in the order of commits, for ever.

    ``read(cursor, limit)`` returns rows above the cursor in its order. None is
    yielded each time everything there is has been seen. Ends when the consumer
    closes it.
    """
    cursor = start
    with wakeups.listening(topic) as listener:
        while True:
            rows = await read(cursor, PAGE)
            for row in rows:
                cursor = position(row)
                yield row
            if len(rows) < PAGE:
                yield None
                await listener.wait(POLL)
