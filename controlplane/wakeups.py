"""Wake-ups: "look again", nothing more.

State is in the database. A wake-up only shortens the wait of whoever would have
polled, so it may be lost, doubled or late without harm: every listener looks
before it waits, and looks again after a slow poll that no wake-up cut short.

What happens here is told here at once. A ``Carrier`` takes it to the other processes
of the installation, and brings theirs; where there is one process, there is none.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol


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


@dataclass(slots=True)
class News:
    """What one process has to tell the others; several are told as one."""

    topics: set[str] = field(default_factory=set)
    working: set[str] = field(default_factory=set)
    """Agents that have something to fetch."""
    stopping: set[str] = field(default_factory=set)
    """Agents that have an attempt to stop; they look for work too."""
    sessions: dict[str, int] = field(default_factory=dict)
    """The newest session epoch of agents that another process may still hold an older session of."""
    everything: bool = False
    """Whether more happened than stands here: look at all."""

    def add(self, other: News) -> None:
        """Take in what ``other`` tells."""
        self.topics |= other.topics
        self.working |= other.working
        self.stopping |= other.stopping
        for agent_id, epoch in other.sessions.items():
            self.sessions[agent_id] = max(epoch, self.sessions.get(agent_id, 0))
        self.everything = self.everything or other.everything

    def __bool__(self) -> bool:
        return bool(self.topics or self.working or self.stopping or self.sessions or self.everything)


class Carrier(Protocol):
    """Takes news to the other processes."""

    def carry(self, news: News) -> None:
        """Take ``news`` along, soon; does not wait and does not raise."""


class WakeUps:
    """The wake-ups of one process.

    Who must do more than look at a topic adds itself: ``on_work`` gets agents that have
    something to fetch and whether attempts are to be stopped, ``on_sessions`` the newest
    epochs of agents, ``on_everything`` is called where nobody knows what was missed.
    """

    def __init__(self, carrier: Carrier | None = None) -> None:
        self._carrier = carrier
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)
        self.on_work: list[Callable[[Iterable[str], bool], None]] = []
        self.on_sessions: list[Callable[[Mapping[str, int]], None]] = []
        self.on_everything: list[Callable[[], None]] = []

    def carried_by(self, carrier: Carrier) -> None:
        """Tell other processes too, from now on."""
        self._carrier = carrier

    def notify(self, topic: str) -> None:
        """Wake everyone who listens to ``topic``."""
        self._wake_topic(topic)
        if self._carrier is not None:
            self._carrier.carry(News(topics={topic}))

    def wake(self, agent_ids: Iterable[str], *, stopping: bool = False) -> None:
        """Let agents look for work, and with ``stopping`` for attempts to be stopped, wherever they are."""
        agents = set(agent_ids)
        self._wake_agents(agents, stopping)
        if self._carrier is not None and agents:
            self._carrier.carry(News(stopping=agents) if stopping else News(working=agents))

    def replaced(self, sessions: Mapping[str, int]) -> None:
        """Tell the other processes that these agents have sessions of these epochs here now."""
        if self._carrier is not None and sessions:
            self._carrier.carry(News(sessions=dict(sessions)))

    def receive(self, news: News) -> None:
        """Tell this process what another one has told."""
        if news.everything:
            self.look_again()
        for topic in news.topics:
            self._wake_topic(topic)
        if news.working:
            self._wake_agents(news.working, False)
        if news.stopping:
            self._wake_agents(news.stopping, True)
        if news.sessions:
            for tell in self.on_sessions:
                tell(news.sessions)

    def look_again(self) -> None:
        """Let everyone here look at all: wake-ups of others may have been lost."""
        for topic in list(self._listeners):
            self._wake_topic(topic)
        for look in self.on_everything:
            look()

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

    def _wake_topic(self, topic: str) -> None:
        for listener in self._listeners.get(topic, ()):
            listener.wake()

    def _wake_agents(self, agent_ids: Iterable[str], stopping: bool) -> None:
        for wake in self.on_work:
            wake(agent_ids, stopping)
