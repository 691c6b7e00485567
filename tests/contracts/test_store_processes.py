"""Leases of processes and of schedules on a real database: who lives, who holds what, who takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from controlplane.agents.rules import Presence, PresenceReason
from controlplane.processes import store
from controlplane.processes.records import ProcessRecord
from controlplane.processes.service import LeaseTimes, Member, Processes
from controlplane.schedules import Leases, Turn, TurnLost
from controlplane.schedules import store as schedule_store
from controlplane.storage.database_time import database_now
from controlplane.storage.location import Location
from tests.contracts.agents_world import World, open_world

TIMES = LeaseTimes(renewal=timedelta(seconds=3), length=timedelta(seconds=15))
EVERY = {"sweep": timedelta(seconds=5), "retention": timedelta(hours=1)}


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[World]:
    async with open_world(location) as opened:
        await opened.enrol("a1")
        yield opened


def record(process_id: str, **fields: Any) -> ProcessRecord:
    values: dict[str, Any] = {
        "roles": ("gateway", "worker"),
        "host": "h1",
        "pid": 7,
        "part": "",
        "start_time": 1,
        "lease_expire_time": 0,
        "addresses": {"agents": "h1:7443"},
        "version": "0.1.0",
        "restarts": 0,
    }
    return ProcessRecord(process_id, **{**values, **fields})


def member(world: World, process_id: str, *, alone: bool = False, **fields: Any) -> Member:
    return Member(world.database, world.agents, world.clock, record(process_id, **fields), TIMES, alone=alone)


def processes(world: World) -> Processes:
    return Processes(world.database, world.agents, world.clock)


async def ids(world: World) -> list[str]:
    return sorted(one.process_id for one, _ in await processes(world).list())


async def lapse(world: World, *process_ids: str) -> None:
    """Let leases be over, by the clock of the database."""
    async with world.database.unit_of_work() as work:
        now = await database_now(work.connection, world.clock)
        for process_id in process_ids:
            assert await store.renew(work, process_id, now)


async def sweep(world: World, turn: Turn | None = None) -> int:
    return await processes(world).sweep(turn or Turn("processes"))


# --- processes


async def test_a_process_is_listed_as_it_said_with_what_its_lease_still_is(world: World) -> None:
    one = member(world, "p1", part="s/gateway-1", restarts=2)
    await one.join()
    ((found, left),) = await processes(world).list()
    assert found == record("p1", part="s/gateway-1", restarts=2, lease_expire_time=found.lease_expire_time)
    assert timedelta(seconds=10) < left <= TIMES.length
    await one.told({"health": "h1:7446"})
    ((found, _),) = await processes(world).list()
    assert found.addresses == {"health": "h1:7446"}
    await one.leave()
    assert await ids(world) == []


async def test_one_that_is_alone_takes_all_others_for_gone(world: World) -> None:
    await member(world, "p1").join()
    await world.open("a1", gateway="p1")
    assert await member(world, "p2", alone=True).join() == 1
    assert await ids(world) == ["p2"]


async def test_a_part_that_is_started_again_takes_its_former_self_for_gone(world: World) -> None:
    for process_id, part in (("p1", "s/gateway-1"), ("p2", "s/gateway-2"), ("p3", "t/gateway-1")):
        await member(world, process_id, part=part).join()
    await world.open("a1", gateway="p1")
    assert await member(world, "p4", part="s/gateway-1").join() == 1
    assert await ids(world) == ["p2", "p3", "p4"]


async def test_a_lapse_closes_the_sessions_of_that_process_alone(world: World) -> None:
    await world.enrol("a2")
    for process_id in ("p1", "p2"):
        await member(world, process_id).join()
    await world.open("a1", gateway="p1")
    await world.open("a2", gateway="p2")
    await lapse(world, "p1")
    assert await sweep(world) == 1
    assert await ids(world) == ["p2"]
    gone = await world.agents.get("a1")
    assert (gone.presence, gone.presence_reason) == (Presence.STALE, PresenceReason.SERVER_ENDED)
    assert (await world.agents.get("a2")).presence is Presence.ONLINE
    assert await sweep(world) == 0


async def test_a_session_that_moved_before_the_lapse_stays(world: World) -> None:
    for process_id in ("p1", "p2"):
        await member(world, process_id).join()
    await world.open("a1", gateway="p1")
    await world.open("a1", shown=b"n1", handed=b"n2", gateway="p2")
    await lapse(world, "p1")
    assert await sweep(world) == 0
    assert (await world.agents.get("a1")).presence is Presence.ONLINE


async def test_one_that_renews_has_not_lapsed_and_one_that_lapsed_is_told_so(world: World) -> None:
    one, other = member(world, "p1"), member(world, "p2")
    await one.join()
    await other.join()
    await lapse(world, "p1", "p2")
    assert await one.renew()
    await sweep(world)
    assert await ids(world) == ["p1"]
    assert not await other.renew()
    assert await ids(world) == ["p1", "p2"]
    assert await other.renew()


async def test_who_could_not_renew_itself_judges_no_one_for_as_long_as_a_lease(world: World) -> None:
    times = LeaseTimes(timedelta(milliseconds=10), timedelta(milliseconds=500))
    one = Member(world.database, world.agents, world.clock, record("p1"), times, alone=False)
    assert not one.may_judge
    await one.join()
    assert not one.may_judge
    async with asyncio.timeout(30):
        while not one.may_judge:
            await one.renew()
    await asyncio.sleep(0.6)  # a lease that nobody renewed
    await one.renew()
    assert not one.may_judge


async def test_an_agent_nobody_holds_goes_offline_after_its_time(world: World) -> None:
    await world.open("a1", gateway="gone")
    await sweep(world)
    world.clock.advance(89)
    await sweep(world)
    assert (await world.agents.get("a1")).presence is Presence.STALE
    world.clock.advance(2)
    await sweep(world)
    assert (await world.agents.get("a1")).presence is Presence.OFFLINE


# --- schedules


async def renew(world: World, leases: Leases) -> None:
    async with world.database.unit_of_work() as work:
        now = await database_now(work.connection, world.clock)
        await leases.renew(work, now, TIMES.length, asyncio.get_running_loop().time())


async def end_leases(world: World) -> None:
    """Let the leases of all schedules be over."""
    async with world.database.unit_of_work() as work:
        await work.connection.execute(schedule_store.schedules.update().values(lease_expire_time=0))


async def make_due(world: World) -> None:
    async with world.database.unit_of_work() as work:
        await work.connection.execute(schedule_store.schedules.update().values(next_due_time=0))


async def test_one_process_holds_a_schedule_and_the_others_do_not(world: World) -> None:
    one, other = Leases("p1", EVERY), Leases("p2", EVERY)
    await renew(world, one)
    await renew(world, other)
    first = Turn("sweep", 1)
    assert 10 < one.left(first) <= 15
    assert other.left(first) == 0
    await renew(world, one)
    assert one.left(first) > 10


async def test_what_lapsed_is_taken_over_with_a_greater_fence(world: World) -> None:
    one, other = Leases("p1", EVERY), Leases("p2", EVERY)
    await renew(world, one)
    await end_leases(world)
    await renew(world, other)
    assert other.left(Turn("sweep", 2)) > 0
    await renew(world, one)
    assert one.left(Turn("sweep", 1)) == 0
    assert one.left(Turn("sweep", 2)) == 0


async def test_a_write_of_who_lost_the_schedule_is_refused(world: World) -> None:
    one, other = Leases("p1", EVERY), Leases("p2", EVERY)
    await renew(world, one)
    turn = Turn("sweep", 1)
    async with world.database.unit_of_work() as work:
        await turn.guard(work)
    await end_leases(world)
    await renew(world, other)
    with pytest.raises(TurnLost):
        async with world.database.unit_of_work() as work:
            await turn.guard(work)
    with pytest.raises(TurnLost):
        await sweep(world, turn)


async def test_a_run_is_due_when_it_was_whoever_holds_it_then(world: World) -> None:
    one, other = Leases("p1", EVERY), Leases("p2", EVERY)
    await renew(world, one)
    await make_due(world)
    await renew(world, one)
    turn = await asyncio.wait_for(one.due("retention"), 10)
    assert turn == Turn("retention", 1)
    one.ran(turn, one.now())
    async with world.database.unit_of_work() as work:
        await one.give_up(work)
    assert one.left(turn) == 0
    await renew(world, other)
    assert await asyncio.wait_for(other.due("sweep"), 10) == Turn("sweep", 2)
    waiting = asyncio.ensure_future(other.due("retention"))
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done(), "it ran less than its interval ago"
    waiting.cancel()


async def test_who_waits_for_a_schedule_hears_of_its_take_over(world: World) -> None:
    one, other = Leases("p1", EVERY), Leases("p2", EVERY)
    await renew(world, one)
    await make_due(world)
    await renew(world, other)
    waiting = asyncio.ensure_future(other.due("sweep"))
    await asyncio.sleep(0)
    await end_leases(world)
    await renew(world, other)
    assert await asyncio.wait_for(waiting, 10) == Turn("sweep", 2)


async def test_a_process_that_starts_again_has_its_former_schedules_at_once(world: World) -> None:
    for process_id in ("p1", "p2"):
        one, leases = member(world, process_id, part="s/worker"), Leases(process_id, EVERY)
        one.takes_part.append(leases.renew)
        one.inherits.append(leases.free)
        await one.join()
    assert leases.left(Turn("sweep", 2)) > 0


async def test_a_process_renews_its_schedules_with_its_own_lease_and_gives_both_up(world: World) -> None:
    one, leases = member(world, "p1"), Leases("p1", EVERY)
    one.takes_part.append(leases.renew)
    one.leaves.append(leases.give_up)
    await one.join()
    assert leases.left(Turn("sweep", 1)) > 0
    await one.leave()
    other = Leases("p2", EVERY)
    await renew(world, other)
    assert other.left(Turn("sweep", 2)) > 0
