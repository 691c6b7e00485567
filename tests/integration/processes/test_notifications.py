"""Wake-ups by a real PostgreSQL, which may go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from controlplane.storage.notifications import CHANNEL, Notifications
from controlplane.wakeups import WakeUps
from devtools.postgres import PostgresServer
from tests.support.streams import PATIENCE

pytestmark = pytest.mark.slow


class Process:
    """One process's wake-ups, and what it heard."""

    def __init__(self, name: str, url: str) -> None:
        self.wakeups = WakeUps()
        self.notifications = Notifications(url, name, self.wakeups)
        self.wakeups.carried_by(self.notifications)
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.wakeups.on_work.append(self._work)
        self.wakeups.on_everything.append(lambda: self.heard.put_nowait("all"))

    def _work(self, agent_ids: Iterable[str], stopping: bool) -> None:
        self.heard.put_nowait((sorted(agent_ids), stopping))

    async def next(self) -> Any:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)


@asynccontextmanager
async def running(url: str, *names: str) -> AsyncIterator[list[Process]]:
    made = [Process(name, url) for name in names]
    tasks = [asyncio.create_task(one.notifications.run()) for one in made]
    try:
        for one in made:
            await asyncio.wait_for(one.notifications.listening.wait(), PATIENCE)
            assert await one.next() == "all", "what was told before is lost"
        yield made
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_others_hear_once_and_the_teller_not_again(database_url: str) -> None:
    async with running(database_url, "one", "two", "three") as (one, two, three):
        one.wakeups.wake(["a", "b"])
        assert await one.next() == (["a", "b"], False)
        assert await two.next() == (["a", "b"], False)
        assert await three.next() == (["a", "b"], False)
        two.wakeups.wake(["c"], stopping=True)
        assert await one.next() == (["c"], True), "its own came back to nobody"


async def test_what_comes_while_a_message_is_sent_is_told_with_the_next(database_url: str) -> None:
    async with running(database_url, "one", "two") as (one, two):
        for number in range(500):
            one.wakeups.wake([f"a{number}"])
        told: set[str] = set()
        messages = 0
        while len(told) < 500:
            heard = await two.next()
            messages += 1
            if heard == "all":
                break
            told |= set(heard[0])
        assert messages < 50


async def test_after_postgresql_was_away_everyone_looks_and_hears_again(
    postgres: PostgresServer, database_url: str
) -> None:
    async with running(database_url, "one", "two") as (one, two):
        await asyncio.to_thread(postgres.stop_immediately)
        one.wakeups.wake(["lost"])
        await asyncio.to_thread(postgres.start)
        assert await two.next() == "all"
        await asyncio.wait_for(two.notifications.listening.wait(), PATIENCE)
        heard: Any = None
        async with asyncio.timeout(PATIENCE):
            while heard != (["a"], False):
                one.wakeups.wake(["a"])
                with suppress(TimeoutError):
                    heard = await asyncio.wait_for(two.heard.get(), 0.5)


async def test_garbage_on_the_channel_is_taken_for_look_at_all(
    postgres: PostgresServer, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        (one,) = await stack.enter_async_context(running(database_url, "one"))
        name = database_url.rpartition("/")[2]
        await asyncio.to_thread(postgres.query, f"SELECT pg_notify('{CHANNEL}', 'garbage')", name)
        assert await one.next() == "all"
