"""Watching pipelines, and the log of one, as they are written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from controlplane.filtering import digest_of_request, read
from controlplane.filtering.page_bytes import fitting
from controlplane.packaging import logs
from controlplane.packaging.paging import Pages
from controlplane.packaging.running import TOPIC
from controlplane.packaging.service import Shown, shown, unknown
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store.pipelines import LogLine, PipelineRecord
from controlplane.storage.database import Database, Look
from controlplane.storage.watching import POLL, REMEMBERED, Cursor, Seen, follow
from controlplane.wakeups import Listener, WakeUps

AT_ONCE = 100
"""Pipelines in one message."""

LOG_PAGE = 1_000
"""Lines in one message."""

_KIND = "pipelines.watch"
_LINE_OVERHEAD = 32  # bytes of a line's other fields


@dataclass(slots=True)
class _Sending:
    """What a watch has gathered for its next message, and what it has sent."""

    cursor: Cursor
    waiting: list[PipelineRecord] = field(default_factory=list)
    sent: set[str] = field(default_factory=set)
    begun: bool = False

    def take(self, seen: Seen[PipelineRecord]) -> None:
        """Gather one that matches, and one that was sent and matches no longer."""
        self.cursor = seen.cursor
        ident = seen.row.pipeline_id
        if seen.matches:
            if len(self.sent) >= REMEMBERED:
                self.sent.clear()
            self.sent.add(ident)
            self.waiting.append(seen.row)
        elif ident in self.sent:
            # So that who waits for an end with ``state = RUNNING`` is told of it.
            self.sent.discard(ident)
            self.waiting.append(seen.row)

    @property
    def full(self) -> bool:
        """Whether the message has as many as it may have."""
        return len(self.waiting) >= AT_ONCE


class Watches:
    """Watches of pipelines and of their logs."""

    def __init__(self, database: Database, wakeups: WakeUps, pages: Pages) -> None:
        self._database = database
        self._wakeups = wakeups
        self._pages = pages

    async def pipelines(
        self, filter_text: str, resume_token: str
    ) -> AsyncGenerator[tuple[list[Shown], str], None]:
        """Yield (pipelines, resume token): what matches, in one message at least, then what changes.

        Raises ``InvalidArgument`` FILTER_INVALID and PAGE_TOKEN_INVALID.
        """
        chosen = read(filter_text, stored.FILTER)
        request = digest_of_request({"filter": filter_text})
        resume = self._pages.place_of(resume_token, _KIND, request, "resume_token")

        async def above(cursor: Cursor, limit: int) -> Look[Seen[PipelineRecord]]:
            return await self._database.look(
                lambda connection: stored.changed(connection, chosen, cursor, limit),
                lambda seen: seen.revision,
            )

        sending = _Sending(resume or (0, ""), begun=resume is not None)
        rows = follow(self._wakeups, TOPIC, sending.cursor, above, lambda seen: seen.cursor)
        async with aclosing(rows):
            async for seen in rows:
                if seen is not None:
                    sending.take(seen)
                if sending.full or (seen is None and (sending.waiting or not sending.begun)):
                    sending.begun = True
                    yield await self._shown(sending), self._pages.token(_KIND, request, sending.cursor)

    async def _shown(self, sending: _Sending) -> list[Shown]:
        found, sending.waiting = sending.waiting, []
        async with self._database.reading() as connection:
            stages = await stored.stages(connection, [one.pipeline_id for one in found])
        return [shown(one, stages.get(one.pipeline_id, [])) for one in found]

    async def log(
        self, pipeline_id: str, after_line: int, *, follow_it: bool
    ) -> AsyncGenerator[list[LogLine], None]:
        """Yield the lines of a log above a number; with ``follow_it`` until the pipeline has ended.

        Raises ``NotFound`` PIPELINE_UNKNOWN.
        """
        with self._wakeups.listening(logs.TOPIC) as said, self._wakeups.listening(TOPIC) as changed:
            while True:
                ended, lines = await self._look(pipeline_id, after_line)
                if lines:
                    after_line = lines[-1].number
                    yield lines
                elif ended or not follow_it:
                    return
                else:
                    await _either(said, changed)

    async def _look(self, pipeline_id: str, after_line: int) -> tuple[bool, list[LogLine]]:
        # The state first: what was said before an end is kept before it.
        async with self._database.reading() as connection:
            found = await stored.find(connection, pipeline_id)
            if found is None:
                raise unknown(pipeline_id)
            lines = await stored.log_after(connection, pipeline_id, after_line, LOG_PAGE)
        return found.state.final, list(fitting(lines, _size))


async def _either(*listeners: Listener) -> None:
    waits = [asyncio.ensure_future(listener.wait(POLL)) for listener in listeners]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _size(line: LogLine) -> int:
    return _LINE_OVERHEAD + len(line.text.encode())
