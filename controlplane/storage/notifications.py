"""Wake-ups between the processes of one installation, by LISTEN and NOTIFY of PostgreSQL.

What a process has to tell is gathered while the last message is sent, and for ``PACE``
after it: an idle one tells at once, a busy one some hundred times a second, whatever
it commits. A message is small (PostgreSQL takes less than 8,000 bytes); where more is to
be told than fits, it says "look at all".

Both connections are apart from those of transactions, and may be lost at any time: what
was to be told or heard meanwhile is made up for by "look at all", once they are back.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
import structlog

from controlplane.wakeups import News, WakeUps

CHANNEL = "fleetwright"

PAYLOAD_BYTES = 7_900
"""PostgreSQL takes a payload shorter than 8,000 bytes (sql-notify)."""

PACE = timedelta(milliseconds=10)
"""Least time between two messages: each is a transaction that orders all others with one."""

CHECK = timedelta(seconds=15)
"""A connection that heard nothing for so long is asked whether it is there."""

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 5.0

_log = structlog.get_logger(__name__)

Connection = psycopg.AsyncConnection[Any]


class Notifications:
    """The ``Carrier`` of one process; ``sender`` is its id. ``run`` must be running."""

    def __init__(self, conninfo: str, sender: str, wakeups: WakeUps) -> None:
        self._conninfo = conninfo
        self._sender = sender
        self._wakeups = wakeups
        self._news = News()
        self._some = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while wake-ups of others are heard."""

    def carry(self, news: News) -> None:
        """Tell the other processes, soon."""
        self._news.add(news)
        self._some.set()

    async def run(self) -> None:
        """Tell and listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._connected("listening", self._listen))
            group.create_task(self._connected("telling", self._tell))

    async def _connected(self, what: str, work: Callable[[Connection], Awaitable[None]]) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._conninfo,
                    autocommit=True,
                    application_name="fleetwright wake-ups",
                    connect_timeout=10,
                    # A database that vanished without a word is noticed in some 30 s.
                    keepalives_idle=10,
                    keepalives_interval=5,
                    keepalives_count=4,
                )
                async with connection:
                    wait = _FIRST_WAIT
                    await work(connection)
            except (psycopg.Error, OSError) as error:
                self.listening.clear()
                _log.warning("no wake-ups between processes", part=what, error=type(error).__name__)
            except Exception:  # noqa: BLE001 # a wake-up that failed here must not end the next ones
                self.listening.clear()
                _log.exception("no wake-ups between processes", part=what)
            # Many processes lose the same database at the same moment.
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 # jitter guards nothing
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _listen(self, connection: Connection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        # What was told before this moment is lost.
        self._wakeups.look_again()
        self.listening.set()
        while True:
            async for message in connection.notifies(timeout=CHECK.total_seconds()):
                sender, news = decode(message.payload)
                if sender != self._sender:
                    self._wakeups.receive(news)
            await connection.execute("SELECT 1")

    async def _tell(self, connection: Connection) -> None:
        # The message is of no use after a crash, so nobody has to wait for the disk.
        await connection.execute("SET synchronous_commit = off")
        while True:
            await self._some.wait()
            self._some.clear()
            news, self._news = self._news, News()
            try:
                await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, encode(self._sender, news)))
            except BaseException:
                self.carry(News(everything=True))
                raise
            await asyncio.sleep(PACE.total_seconds())


def encode(sender: str, news: News) -> str:
    """Return the payload of a message; with more agents than fit it says "look at all"."""
    topics = {"from": sender, "topics": sorted(news.topics)}
    if not news.everything:
        full = {
            **topics,
            "working": sorted(news.working),
            "stopping": sorted(news.stopping),
            "sessions": news.sessions,
        }
        text = json.dumps({name: value for name, value in full.items() if value}, separators=(",", ":"))
        if len(text) <= PAYLOAD_BYTES:  # json.dumps writes ASCII
            return text
    return json.dumps({**topics, "everything": True}, separators=(",", ":"))


def decode(payload: str) -> tuple[str, News]:
    """Return who sent a message, and its news; one that cannot be read says "look at all"."""
    try:
        told = json.loads(payload)
        return str(told["from"]), News(
            topics=set(told.get("topics", ())),
            working=set(told.get("working", ())),
            stopping=set(told.get("stopping", ())),
            sessions={str(agent): int(epoch) for agent, epoch in told.get("sessions", {}).items()},
            everything=bool(told.get("everything", False)),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        # Whoever may notify may write anything, and a newer version may write more.
        return "", News(everything=True)
