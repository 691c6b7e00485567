"""Points on PostgreSQL: a partition for each day of receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest
from sqlalchemy import text

from controlplane.storage.location import Postgres
from controlplane.storage.postgresql.database import PostgresDatabase
from controlplane.telemetry.records import Choice
from controlplane.telemetry.store import partitions, points
from devtools.postgres import PostgresServer
from tests.contracts.agents_world import World, open_world

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
ALL = Choice()


@pytest.fixture
async def world(migrated: PostgresServer) -> AsyncIterator[World]:
    url = migrated.create_database("partitions", "migrated")
    async with open_world(Postgres(url)) as opened:
        yield opened
    migrated.drop_database("partitions")


async def days(world: World) -> list[str]:
    async with world.database.reading() as connection:
        found = await connection.execute(
            text(
                "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
                "WHERE inhparent = 'telemetry_points'::regclass ORDER BY relname"
            )
        )
        return [name.removeprefix("telemetry_points_") for name in found.scalars()]


async def stored(world: World) -> list[float]:
    page = await world.telemetry.query(ALL, page_size=1_000, page_token="")
    return [found.point.value for found in page.points]


async def test_each_day_of_receipt_has_a_partition_that_is_made_when_its_first_points_come(
    world: World,
) -> None:
    await world.store("a1", 1, [1.0])
    await world.store("a1", 2, [2.0])
    world.clock.advance(DAY.total_seconds())
    await world.store("a1", 3, [3.0])
    assert await days(world) == ["20240501", "20240502"]


async def test_retention_drops_days_that_are_over_whole_and_keeps_those_that_are_not(world: World) -> None:
    await world.store("a1", 1, [1.0, 2.0])
    world.clock.advance(DAY.total_seconds())
    await world.store("a1", 3, [3.0])
    await world.telemetry.prune(world.clock.now() - timedelta(hours=13))
    assert await stored(world) == [1.0, 2.0, 3.0], "the day has another hour"
    await world.telemetry.prune(world.clock.now() - timedelta(hours=12))
    assert await stored(world) == [3.0]
    assert await days(world) == ["20240502"]
    assert await world.committed("a1", "j1") == 3


async def test_a_day_that_was_dropped_is_made_again_when_the_clock_goes_back(world: World) -> None:
    await world.store("a1", 1, [1.0])
    await world.telemetry.prune(world.clock.now() + 2 * DAY)
    assert await days(world) == []
    await world.store("a1", 2, [2.0])
    assert await stored(world) == [2.0]


async def test_two_transactions_that_make_the_same_day_store_both(world: World) -> None:
    await asyncio.gather(*(world.store(agent, 1, [1.0]) for agent in ("a1", "a2")))
    assert await days(world) == ["20240501"]
    assert await stored(world) == [1.0, 1.0]


async def test_the_same_batch_twice_at_the_same_moment_is_stored_once(world: World) -> None:
    assert isinstance(world.database, PostgresDatabase)
    async with open_world(world.database.place) as second:
        for first in range(1, 40, 2):
            await asyncio.gather(
                world.store("a1", first, [1.0, 2.0]),
                second.store("a1", first, [1.0, 2.0]),
            )
    assert len(await stored(world)) == 40


async def test_a_watch_skips_no_point_whose_transaction_commits_late(world: World) -> None:
    await world.store("a1", 1, [0.0])
    async with aclosing(world.telemetry.watch(ALL, resume_token="")) as looks:
        await anext(looks)
        async with world.database.unit_of_work() as late:
            await late.revision()
            await world.store("a1", 2, [1.0])
            looking = asyncio.ensure_future(anext(looks))
            # What was committed after is not told of while something before it may still come.
            up_to, behind = await world.database.read(points.committed_up_to)
            assert behind
            assert up_to[0] < await late.revision()
        seen = await asyncio.wait_for(looking, 20)
    assert [found.point.value for found in seen.points] == [1.0]


async def test_the_estimate_of_what_was_dropped_is_never_negative(world: World) -> None:
    await world.store("a1", 1, [1.0, 2.0])
    assert await world.telemetry.prune(world.clock.now() + 2 * DAY) >= 0
    assert DAY.total_seconds() * 1_000_000 == partitions.DAY
