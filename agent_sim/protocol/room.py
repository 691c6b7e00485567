"""Room for what an agent must not forget: following a disk that is full until it is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from agent_sim.protocol.errors import AgentError, JournalError
from agent_sim.protocol.journal import Journal
from agent_sim.protocol.observer import Observer

log = logging.getLogger(__name__)


class Room:
    """Looks from time to time whether a journal that had no room has some again."""

    def __init__(
        self, journal: Journal, observer: Observer, interval: timedelta, fail: Callable[[AgentError], None]
    ) -> None:
        self._journal = journal
        self._observer = observer
        self._interval = interval.total_seconds()
        self._fail = fail
        self._looking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._closed = False
        self.on_room: Callable[[], None] | None = None
        """Called when there is room again."""

    def begin(self) -> None:
        """Follow the journal from now on."""
        self._journal.when_full = self._full
        if not self._journal.has_room:
            self._full()

    async def wait(self) -> bool:
        """Wait until there is room; returns False where the agent stops before."""
        while not self._closed and not self._journal.has_room:
            await self._news.wait()
        return not self._closed

    async def stop(self) -> None:
        """Look no more, and let everybody go who waits."""
        self._closed = True
        self._news.set()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _full(self) -> None:
        if self._looking is None and not self._closed:
            self._news.clear()
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        self._observer.journal_full()
        try:
            # Room comes from elsewhere and says nothing: there is no event to wait for.
            while True:
                await asyncio.sleep(self._interval)
                if await self._journal.recover():
                    break
        except JournalError as error:
            self._fail(error)
            return
        finally:
            self._looking = None
        self._observer.journal_has_room()
        self._news.set()
        if self.on_room is not None:
            self.on_room()
