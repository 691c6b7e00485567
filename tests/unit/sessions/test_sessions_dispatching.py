"""The dispatcher of a Tasks stream, with a writer and a tasks room that answer as the test says."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from fleetwright.v1 import work_pb2

from controlplane.sessions import outbox
from controlplane.sessions.dispatching import LEASED_AT_ONCE, Dispatcher
from controlplane.tasks.operations import Adopt, Adopted, Lease
from controlplane.tasks.records import Assigned

SPEC = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=bytes(1_000))).SerializeToString()


class Room:
    """Stands for the writer and for the tasks room."""

    def __init__(self, queued: int, stops: list[str] | None = None) -> None:
        self.queued = queued
        self.stops = stops or []
        self.leases: list[int] = []
        self.asked = asyncio.Event()
        self.adopting = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()

    async def submit(self, operation: Lease | Adopt) -> tuple[Assigned, ...] | Adopted:
        if isinstance(operation, Adopt):
            self.adopting.set()
            await self.answer.wait()
            return Adopted((), (), self.lease(operation))
        return self.lease(operation)

    def lease(self, lease: Lease | Adopt) -> tuple[Assigned, ...]:
        self.leases.append(lease.limit)
        count = min(lease.limit, self.queued)
        self.queued -= count
        begin = self.queued
        return tuple(
            Assigned(f"attempt-{begin + at}", f"task-{begin + at}", 1, SPEC, 1_000_000, False)
            for at in range(count)
        )

    async def cancellations(self, agent_id: str) -> list[str]:
        self.asked.set()
        await self.answer.wait()
        return self.stops


def dispatcher_on(room: Room, allowed: int) -> Dispatcher:
    made = Dispatcher("a1", 1, cast(Any, room), cast(Any, room), 64, lambda: 0)
    made.add_credits(allowed)
    return made


async def said(dispatcher: Dispatcher) -> list[str | None]:
    """End the dispatcher's outbox and return what it held."""
    kinds: list[str | None] = []

    async def write(response: Any) -> None:
        kinds.append(response.WhichOneof("message"))

    dispatcher.outbox.close(refused=False)
    await dispatcher.outbox.write_all(write)
    return kinds


async def idle() -> None:
    """Let every task run until it waits for something that has not happened."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_lease_is_bounded_and_followed_by_the_next_while_there_are_credits() -> None:
    room = Room(queued=40)
    dispatcher = dispatcher_on(room, 64)
    running = asyncio.create_task(dispatcher.run())
    dispatcher.wake()
    await idle()
    dispatcher.end()
    await running
    assert room.leases == [LEASED_AT_ONCE] * 3
    assert await said(dispatcher) == ["assignment"] * 40


async def test_opening_leases_in_the_same_commit_and_says_so_after_it() -> None:
    room = Room(queued=3)
    room.answer.clear()
    dispatcher = dispatcher_on(room, 8)
    opened = asyncio.Event()
    dispatcher.wake()
    running = asyncio.create_task(dispatcher.serve((), lambda _: opened.set()))
    await room.adopting.wait()
    assert not opened.is_set()
    room.answer.set()
    await opened.wait()
    await idle()
    dispatcher.end()
    await running
    assert room.leases == [8]
    assert await said(dispatcher) == ["assignment"] * 3


async def test_work_that_comes_while_a_stream_opens_is_looked_for_once_more() -> None:
    room = Room(queued=0)
    room.answer.clear()
    dispatcher = dispatcher_on(room, 8)
    running = asyncio.create_task(dispatcher.serve((), lambda _: None))
    await room.adopting.wait()
    dispatcher.wake()
    room.answer.set()
    await idle()
    dispatcher.end()
    await running
    assert room.leases == [8, 8]


async def test_what_was_leased_for_a_stream_that_ended_as_it_opened_is_known_as_untaken() -> None:
    room = Room(queued=1)
    room.answer.clear()
    dispatcher = dispatcher_on(room, 8)
    running = asyncio.create_task(dispatcher.serve((), lambda _: None))
    await room.adopting.wait()
    dispatcher.end()
    room.answer.set()
    await running
    assert dispatcher.leaves_work


async def test_no_more_is_leased_than_has_place_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ASSIGNED_BYTES", 10_000)
    room = Room(queued=40)
    dispatcher = dispatcher_on(room, 64)
    running = asyncio.create_task(dispatcher.run())
    dispatcher.wake()
    await idle()
    assert room.leases == [LEASED_AT_ONCE]

    async def write(_: Any) -> None:
        return

    writing = asyncio.create_task(dispatcher.outbox.write_all(write))
    await idle()
    assert room.queued == 0
    dispatcher.end()
    dispatcher.outbox.close(refused=False)
    await asyncio.gather(running, writing)


async def test_a_stream_that_ended_while_it_looked_for_stops_leases_nothing_and_says_so() -> None:
    room = Room(queued=1)
    room.answer.clear()
    dispatcher = dispatcher_on(room, 8)
    running = asyncio.create_task(dispatcher.run())
    dispatcher.wake(stopping=True)
    await room.asked.wait()
    dispatcher.end()
    room.answer.set()
    await running
    assert room.leases == []
    assert dispatcher.leaves_work


async def test_a_stop_is_said_once_until_its_result_was_answered() -> None:
    room = Room(queued=0, stops=["x"])
    dispatcher = dispatcher_on(room, 8)
    running = asyncio.create_task(dispatcher.run())
    for _ in range(2):
        dispatcher.wake(stopping=True)
        await idle()
    dispatcher.forget("x")
    dispatcher.wake(stopping=True)
    await idle()
    dispatcher.end()
    await running
    assert await said(dispatcher) == ["cancel", "cancel"]


async def test_what_is_not_an_agents_is_stopped_and_not_remembered() -> None:
    dispatcher = dispatcher_on(Room(queued=0), 8)
    for number in range(1_000):
        dispatcher.cancel(f"made-up-{number}")
    assert dispatcher._stopping == set()
    assert await said(dispatcher) == ["cancel"] * 1_000
