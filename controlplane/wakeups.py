"""Wake-ups: "look again", nothing more.

State is in the database. A wake-up only shortens the wait of whoever would have
polled, so it may be lost, doubled or late without harm: every listener looks
before it waits, and looks again after a slow poll that no wake-up cut short.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta


class Listener:
    """One waiter on one topic. Wake-ups that come while it looks are kept as one."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Let the current or the next ``wait`` return."""
        self._woken.set()

    async def wait(self, at_most: timedelta) -> bool:
        """Wait for a wake-up, at most so long; returns whether one came."""
        try:
            async with asyncio.timeout(at_most.total_seconds()):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True


class WakeUps:
    """The wake-ups of one process, by topic."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)

    def notify(self, topic: str) -> None:
        """Wake everyone who listens to ``topic``."""
        for listener in self._listeners.get(topic, ()):
            listener.wake()

    @contextmanager
    def listening(self, topic: str) -> Iterator[Listener]:
        """Listen to ``topic`` inside the block."""
        listener = Listener()
        self._listeners[topic].add(listener)
        try:
            yield listener
        finally:
            self._listeners[topic].discard(listener)
            if not self._listeners[topic]:
                del self._listeners[topic]
