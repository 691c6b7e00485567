"""The live sessions of a process: the newest wins, and what hangs on one ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import pytest_asyncio

from controlplane.errors import Aborted, FailedPrecondition, ServiceError
from controlplane.sessions.registry import Ending, Registry, Session

REPLACED = 3


class Stream:
    """A stream that hangs on a session, and notes what it is told."""

    def __init__(self) -> None:
        self.ended: list[str | None] = []
        self.woken: list[bool] = []

    def end(self, error: ServiceError | None) -> None:
        self.ended.append(error.reason if error else None)

    def wake(self, *, stopping: bool = False) -> None:
        self.woken.append(stopping)


class Room:
    """A registry, and sessions whose handlers wait to be ended."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.registry = Registry()
        self.announced: list[int] = []
        self._stack = stack

    async def session(self, epoch: int, agent_id: str = "a1") -> Session:
        task = await self._stack.enter_async_context(_handler())

        async def announce(session: Session) -> None:
            self.announced.append(session.epoch)

        return Session(agent_id, epoch, f"serial {epoch}", "j1", 10.0, 0, task, None, announce)


@asynccontextmanager
async def _handler() -> AsyncIterator[asyncio.Task[object]]:
    task: asyncio.Task[object] = asyncio.create_task(asyncio.Event().wait())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    async with AsyncExitStack() as stack:
        yield Room(stack)


async def test_a_newer_session_takes_over_and_the_older_is_told(room: Room) -> None:
    old, new = await room.session(1), await room.session(2)
    old.work, old.telemetry = Stream(), Stream()
    room.registry.enter(old, REPLACED)
    room.registry.enter(new, REPLACED)
    assert room.registry.get("a1") is new
    assert old.ending is not None
    assert old.ending.reason == REPLACED
    assert old.work.ended == old.telemetry.ended == ["SESSION_REPLACED"]
    assert old.task.cancelling()
    assert (len(room.registry), list(room.registry)) == (1, [new])


@pytest.mark.parametrize("epoch", [1, 2])
async def test_a_session_that_arrives_after_a_newer_one_is_refused(room: Room, epoch: int) -> None:
    new, late = await room.session(2), await room.session(epoch)
    room.registry.enter(new, REPLACED)
    with pytest.raises(Aborted) as refused:
        room.registry.enter(late, REPLACED)
    assert refused.value.reason == "SESSION_REPLACED"
    assert room.registry.get("a1") is new
    assert new.ending is None


async def test_an_older_session_that_leaves_late_does_not_take_the_newer_one_along(room: Room) -> None:
    old, new = await room.session(1), await room.session(2)
    room.registry.enter(old, REPLACED)
    room.registry.enter(new, REPLACED)
    room.registry.leave(old)
    assert room.registry.get("a1") is new
    room.registry.leave(new)
    assert room.registry.get("a1") is None
    assert len(room.registry) == 0


async def test_streams_of_a_session_that_left_are_refused(room: Room) -> None:
    session = await room.session(1)
    work = session.work = Stream()
    room.registry.enter(session, REPLACED)
    room.registry.leave(session)
    assert work.ended == ["SESSION_STALE"]


async def test_a_stream_opens_only_on_the_live_session(room: Room) -> None:
    session = await room.session(2)
    room.registry.enter(session, REPLACED)
    assert room.registry.live("a1", "serial 2", 2) is session
    for agent_id, serial, epoch in (
        ("a1", "serial 2", 1),
        ("a1", "serial 2", 3),
        ("a1", "serial 1", 2),
        ("a2", "serial 2", 2),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            room.registry.live(agent_id, serial, epoch)
        assert refused.value.reason == "SESSION_STALE"
        assert refused.value.metadata["session_epoch"] == str(epoch)
    session.end(Ending(0))
    with pytest.raises(FailedPrecondition):
        room.registry.live("a1", "serial 2", 2)


async def test_the_first_reason_to_end_stands(room: Room) -> None:
    session = await room.session(1)
    work = session.work = Stream()
    session.end(Ending(1))
    session.end(Ending(2))
    assert session.ending == Ending(1)
    assert work.ended == [None]


async def test_an_agent_with_an_open_stream_is_woken_over_it(room: Room) -> None:
    session = await room.session(1)
    work = session.work = Stream()
    room.registry.enter(session, REPLACED)
    room.registry.wake(["a1", "not here"])
    room.registry.wake(["a1"], stopping=True)
    await room.registry.settled()
    assert work.woken == [False, True]
    assert room.announced == []


async def test_an_agent_without_one_is_asked_once_to_open_one(room: Room) -> None:
    session = await room.session(1)
    room.registry.enter(session, REPLACED)
    for _ in range(3):
        room.registry.wake(["a1"])
    await room.registry.settled()
    assert room.announced == [1]
    session.announced = float("-inf")  # as when its stream has opened and ended
    room.registry.wake(["a1"])
    await room.registry.settled()
    assert room.announced == [1, 1]


async def test_a_session_that_ends_is_not_asked(room: Room) -> None:
    session = await room.session(1)
    room.registry.enter(session, REPLACED)
    session.end(Ending(1))
    room.registry.wake(["a1"])
    await room.registry.settled()
    assert room.announced == []


async def test_sessions_may_leave_while_they_are_looked_through(room: Room) -> None:
    for number in range(3):
        room.registry.enter(await room.session(1, f"a{number}"), REPLACED)
    for session in room.registry:
        room.registry.leave(session)
    assert len(room.registry) == 0


async def test_what_runs_aside_is_waited_for_also_when_it_begins_more(room: Room) -> None:
    done: list[str] = []

    async def second() -> None:
        await asyncio.sleep(0)
        done.append("second")

    async def first() -> None:
        room.registry.run_aside(second())
        done.append("first")

    room.registry.run_aside(first())
    await room.registry.settled()
    assert done == ["first", "second"]
