"""Watching a table in the order of commits.

A watched row carries the ``revision`` of the transaction that last wrote it
(``UnitOfWork.revision``). A watch sends what matches, then asks for rows above
the last revision it has seen, whenever it is woken or a slow poll is due. A row
that changes twice between two looks is seen once, in its last state.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Generic, TypeVar

from controlplane.storage.database import Look
from controlplane.wakeups import WakeUps

POLL = timedelta(seconds=5)
"""A lost wake-up delays a watcher by at most this."""

BEHIND = timedelta(milliseconds=20)
"""How long to wait for a transaction that came before what is there; it takes milliseconds."""

PAGE = 500
"""Rows read at once; a watch of a large fleet must not hold it in memory."""

REMEMBERED = 65_536
"""Ids that a watch remembers to have sent, some 8 MiB; beyond, it forgets and reports as a resumed one."""

Row = TypeVar("Row")
Cursor = tuple[int, str]
"""(revision, id) of the last row seen: rows are read in this order."""


async def follow(
    wakeups: WakeUps,
    topic: str,
    start: Cursor,
    read: Callable[[Cursor, int], Awaitable[Look[Row]]],
    position: Callable[[Row], Cursor],
) -> AsyncGenerator[Row | None, None]:
    """Yield every row above ``start`` in the order of commits, for ever.

    ``read(cursor, limit)`` returns rows above the cursor in its order, as ``Database.look``. None is
    yielded each time everything there is has been seen. Ends when the consumer
    closes it.
    """
    cursor = start
    with wakeups.listening(topic) as listener:
        while True:
            look = await read(cursor, PAGE)
            for row in look.rows:
                cursor = position(row)
                yield row
            if look.behind:
                await listener.wait(BEHIND)
            elif len(look.rows) < PAGE:
                yield None
                await listener.wait(POLL)


class Change(Enum):
    """What a watch reports of a row; the values are the contract's ``ChangeType``."""

    EXISTING = 1
    CHANGED = 2
    REMOVED = 3
    SYNCED = 4


@dataclass(frozen=True, slots=True)
class Seen(Generic[Row]):
    """A row above the cursor, and whether the watch's filter matches it now."""

    row: Row
    cursor: Cursor
    matches: bool

    @property
    def revision(self) -> int:
        """The number of the transaction that wrote it last."""
        return self.cursor[0]


async def watch(
    wakeups: WakeUps,
    topic: str,
    resume: Cursor | None,
    read: Callable[[Cursor, int], Awaitable[Look[Seen[Row]]]],
) -> AsyncGenerator[tuple[Change, Row | None, Cursor], None]:
    """Yield what matches, then SYNCED, then every change, for ever.

    With ``resume`` only what changed since is sent. A row that stops to match is
    REMOVED if this watch has sent it; a resumed watch cannot know what the
    earlier one sent, so there any row that changed and does not match is. So it
    is in a watch that has sent more than it remembers.
    """
    sent: set[str] = set()
    synced = resume is not None
    knows_what_it_sent = resume is None
    cursor = resume or (0, "")
    rows = follow(wakeups, topic, cursor, read, lambda seen: seen.cursor)
    async with aclosing(rows):
        async for seen in rows:
            if seen is None:
                if not synced:
                    synced = True
                    yield Change.SYNCED, None, cursor
                continue
            cursor = seen.cursor
            ident = cursor[1]
            if seen.matches:
                sent.add(ident)
                if len(sent) > REMEMBERED:
                    sent.clear()
                    knows_what_it_sent = False
                yield Change.CHANGED if synced else Change.EXISTING, seen.row, cursor
            elif ident in sent or not knows_what_it_sent:
                sent.discard(ident)
                yield Change.REMOVED, seen.row, cursor
