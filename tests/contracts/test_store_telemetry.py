"""Batches, queries, watches and retention of points on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from fleetwright.v1 import telemetry_service_pb2 as pb2
from sqlalchemy import select

from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound
from controlplane.storage.location import Location
from controlplane.telemetry import service
from controlplane.telemetry.handler import TelemetryHandler
from controlplane.telemetry.operations import BatchStored, StoreBatch
from controlplane.telemetry.records import Choice, PointRecord, Standing
from controlplane.telemetry.store import cursors
from controlplane.telemetry.store.tables import telemetry_points
from tests.contracts.agents_world import NEWEST, OPERATOR, World, open_world

# The handler never looks at it.
NO_CONTEXT: Any = None
ALL = Choice()


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[World]:
    async with open_world(location) as opened:
        await opened.enrol("a1")
        await opened.enrol("a2")
        yield opened


async def values(world: World, choice: Choice = ALL) -> list[float]:
    page = await world.telemetry.query(choice, page_size=0, page_token="")
    return [stored.point.value for stored in page.points]


async def test_a_batch_is_stored_as_sent(world: World) -> None:
    far = world.clock.micros() + 86_400_000_000_000
    point = PointRecord(metric="disk.used_bytes", time=far, value=1.5, attributes='{"device":"sda"}')
    operation = StoreBatch("a1", NEWEST, "j1", 1, 0, (point,), world.clock.micros())
    assert await world.writer.submit(operation) == BatchStored(last_sequence=1, stored=1, duplicates=0)
    (stored,) = (await world.telemetry.query(ALL, page_size=0, page_token="")).points
    assert (stored.agent_id, stored.point, stored.receive_time) == ("a1", point, world.clock.micros())
    assert await world.committed("a1", "j1") == 1
    assert await world.committed("a1", "j2") == 0


async def test_what_comes_twice_is_stored_once(world: World) -> None:
    await world.store("a1", 1, [1, 2, 3])
    assert await world.store("a1", 1, [1, 2, 3]) == BatchStored(3, 0, 3)
    assert await world.store("a1", 3, [3, 4]) == BatchStored(4, 1, 1)
    assert await values(world) == [1, 2, 3, 4]


async def test_batches_of_one_journal_in_one_commit_keep_their_order(world: World) -> None:
    outcomes = await asyncio.gather(
        *(world.store("a1", first, [first, first + 1]) for first in (1, 2, 3, 5)),
        world.store("a2", 1, [100]),
        world.store("a1", 1, [50], journal="j2"),
    )
    assert [outcome.stored for outcome in outcomes] == [2, 1, 1, 2, 1, 1]
    assert await values(world, Choice(agent_id="a1", end=world.clock.micros() + 7)) == [1, 50, 2, 3, 4, 5, 6]
    assert await world.committed("a1", "j1") == 6


async def test_a_journal_that_copies_share_says_how_far_each_of_their_sessions_came(world: World) -> None:
    epochs = range(NEWEST, NEWEST + 4)
    original, copy, silent, back = epochs
    await world.store("a1", 1, [1.0, 2.0], epoch=original)
    await world.store("a1", 3, [3.0], epoch=original)
    await world.store("a1", 4, [4.0, 5.0], epoch=copy)
    await world.store("a1", 5, [5.0], epoch=silent)
    await world.store("a1", 6, [6.0], epoch=back)
    found = [await world.telemetry.standing("a1", "j1", epoch) for epoch in (0, NEWEST - 1, *epochs)]
    assert [standing.previous for standing in found] == [None, 0, 3, 5, 5, 6]
    assert {standing.last_sequence for standing in found} == {6}
    assert await world.telemetry.standing("a1", "j2", original) == Standing(0, 0)


async def test_a_gap_is_refused_unless_declared_and_its_neighbours_are_stored(world: World) -> None:
    await world.store("a1", 1, [1])
    refused, other = await asyncio.gather(
        world.store("a1", 4, [4], dropped=1), world.store("a2", 1, [9]), return_exceptions=True
    )
    assert isinstance(refused, FailedPrecondition)
    assert (refused.reason, refused.metadata) == ("SEQUENCE_GAP", {"expected_sequence": "2"})
    assert other == BatchStored(1, 1, 0)
    assert await world.store("a1", 4, [4], dropped=2) == BatchStored(4, 1, 0)
    async with world.database.reading() as connection:
        known = await cursors.cursors(connection, ["a1"])
    assert known["a1", "j1"].dropped_total == 2


async def test_a_session_that_has_a_successor_stores_nothing(world: World) -> None:
    """Another machine may have a copy of the journal: its numbers are others' points."""
    await world.open("a1")
    former = await world.open("a1")
    assert await world.store("a1", 1, [1.0], epoch=former.epoch) == BatchStored(1, 1, 0)
    await world.open("a1")
    with pytest.raises(FailedPrecondition, match="newer session"):
        await world.store("a1", 2, [2.0], epoch=former.epoch)
    assert await world.committed("a1", "j1") == 1


async def test_numbers_beyond_what_is_kept_are_refused(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await world.store("a1", 2**64 - 1, [1], dropped=2**64 - 2)
    assert refused.value.violations[0].field == "batch.first_sequence"


async def test_a_query_chooses_by_agent_metric_and_time(world: World) -> None:
    now = world.clock.micros()
    await world.store("a1", 1, [1, 2, 3])
    await world.store("a1", 4, [4], metric="memory.used_bytes")
    await world.store("a2", 1, [5])
    assert await values(world) == [1, 5, 2, 3, 4]
    assert await values(world, Choice(agent_id="a1")) == [1, 2, 3, 4]
    assert await values(world, Choice(metric="cpu.used_ratio")) == [1, 5, 2, 3]
    assert await values(world, Choice(agent_id="a1", metric="memory.used_bytes")) == [4]
    assert await values(world, Choice(start=now + 2, end=now + 4)) == [2, 3]
    assert await values(world, Choice(start=now + 2, end=now + 2)) == []


async def test_a_query_that_ends_before_it_starts_is_refused(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await values(world, Choice(start=2, end=1))
    assert refused.value.violations[0].field == "end_time"


async def test_pages_of_points_follow_each_other(world: World) -> None:
    await world.store("a1", 1, [1, 2, 3])
    await world.store("a2", 1, [4, 5])
    token, seen = "", []
    while True:
        page = await world.telemetry.query(ALL, page_size=2, page_token=token)
        assert len(page.points) <= 2
        seen += [stored.point.value for stored in page.points]
        token = page.next_page_token
        if not token:
            break
    assert seen == [1, 4, 2, 5, 3]
    page = await world.telemetry.query(ALL, page_size=1, page_token="")
    with pytest.raises(InvalidArgument):
        await world.telemetry.query(Choice(agent_id="a1"), page_size=1, page_token=page.next_page_token)


async def test_a_page_of_large_points_fits_into_a_message(world: World) -> None:
    attributes = '{"k":"' + "x" * 3_000 + '"}'
    points = tuple(PointRecord("m", world.clock.micros(), 0.0, attributes) for _ in range(1_000))
    await world.writer.submit(StoreBatch("a1", NEWEST, "j1", 1, 0, points, world.clock.micros()))
    page = await world.telemetry.query(ALL, page_size=1_000, page_token="")
    rest = await world.telemetry.query(ALL, page_size=1_000, page_token=page.next_page_token)
    assert 0 < len(page.points) < 1_000
    assert len(page.points) + len(rest.points) == 1_000
    beginning = await _beginning(world)
    async with aclosing(world.telemetry.watch(ALL, resume_token=beginning)) as looks:
        await anext(looks)
        seen = len((await anext(looks)).points)
        assert 0 < seen < 1_000
        assert seen + len((await anext(looks)).points) == 1_000


async def _beginning(world: World) -> str:
    other = world.telemetry._committed([], (0, 0), service._request(ALL))
    return other.resume_token


async def test_an_agent_that_never_was_is_unknown_and_a_deleted_one_keeps_its_points(world: World) -> None:
    with pytest.raises(NotFound):
        await values(world, Choice(agent_id="nobody"))
    assert await values(world, Choice(agent_id="a1")) == []
    await world.store("a1", 1, [1])
    await world.agents.delete("a1", etag="", caller=OPERATOR)
    assert await values(world, Choice(agent_id="a1")) == [1]


async def test_a_watch_sends_what_is_committed_from_now_on(world: World) -> None:
    await world.store("a1", 1, [1])
    async with aclosing(world.telemetry.watch(Choice(agent_id="a1"), resume_token="")) as looks:
        first = await anext(looks)
        assert first.points == []
        await world.store("a2", 1, [9])
        await world.store("a1", 2, [2, 3])
        second = await anext(looks)
        assert [stored.point.value for stored in second.points] == [2, 3]
    await world.store("a1", 4, [4])
    again = world.telemetry.watch(Choice(agent_id="a1"), resume_token=second.resume_token)
    async with aclosing(again) as looks:
        assert (await anext(looks)).points == []
        assert [stored.point.value for stored in (await anext(looks)).points] == [4]


async def test_a_watch_chooses_by_metric(world: World) -> None:
    async with aclosing(world.telemetry.watch(Choice(metric="b"), resume_token="")) as looks:
        await anext(looks)
        await world.store("a1", 1, [1], metric="a")
        await world.store("a1", 2, [2], metric="b")
        assert [stored.point.value for stored in (await anext(looks)).points] == [2]


async def test_a_watch_of_many_points_goes_in_pages(world: World) -> None:
    async with aclosing(world.telemetry.watch(ALL, resume_token="")) as looks:
        await anext(looks)
        await asyncio.gather(world.store("a1", 1, [0.0] * 1_000), world.store("a2", 1, [1.0] * 500))
        assert len((await anext(looks)).points) == 1_000
        assert len((await anext(looks)).points) == 500


async def test_a_watch_of_an_unknown_agent_or_with_a_foreign_token_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        await anext(world.telemetry.watch(Choice(agent_id="nobody"), resume_token=""))
    token = (await anext(world.telemetry.watch(ALL, resume_token=""))).resume_token
    with pytest.raises(InvalidArgument) as refused:
        await anext(world.telemetry.watch(Choice(agent_id="a1"), resume_token=token))
    assert refused.value.violations[0].field == "resume_token"


async def test_retention_goes_by_receipt_in_bounded_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world.database.dialect != "sqlite":
        pytest.skip("on PostgreSQL whole days go at once: test_store_telemetry_partitions.py")
    monkeypatch.setattr(service, "PRUNE_STEP", 4)
    await world.store("a1", 1, [float(number) for number in range(10)])
    world.clock.advance(3_600)
    await world.store("a1", 11, [10.0, 11.0])
    assert await world.telemetry.prune(world.clock.now() - timedelta(hours=2)) == 0
    assert await world.telemetry.prune(world.clock.now() - timedelta(minutes=1)) == 10
    assert await values(world) == [10.0, 11.0]
    assert await world.telemetry.prune(world.clock.now() + timedelta(minutes=1)) == 2
    assert await world.committed("a1", "j1") == 12


async def test_cursors_of_replaced_journals_are_pruned_and_the_newest_one_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PRUNE_STEP", 2)
    for number in range(5):
        await world.store("a1", 1, [1.0], journal=f"j{number}")
        world.clock.advance(60)
    await world.store("a2", 1, [1.0, 2.0])
    world.clock.advance(3_600)
    await world.telemetry.prune(world.clock.now() - timedelta(hours=2))
    assert await world.committed("a1", "j0") == 1
    await world.telemetry.prune(world.clock.now())
    kept = [await world.committed("a1", f"j{number}") for number in range(5)]
    assert kept == [0, 0, 0, 0, 1]
    assert await world.committed("a2", "j1") == 2


async def test_numbers_of_pruned_points_are_not_given_again(world: World) -> None:
    if world.database.dialect != "sqlite":
        pytest.skip("on PostgreSQL points are watched by the transaction that stored them")
    await world.store("a1", 1, [1, 2])
    async with aclosing(world.telemetry.watch(ALL, resume_token="")) as looks:
        token = (await anext(looks)).resume_token
    await world.telemetry.prune(world.clock.now() + timedelta(minutes=1))
    await world.store("a1", 3, [3])
    async with aclosing(world.telemetry.watch(ALL, resume_token=token)) as looks:
        await anext(looks)
        assert [stored.point.value for stored in (await anext(looks)).points] == [3]
    async with world.database.reading() as connection:
        assert (await connection.execute(select(telemetry_points.c.point_id))).scalars().all() == [3]


async def test_the_handler_speaks_the_contract(world: World) -> None:
    handler = TelemetryHandler(world.telemetry)
    stream = handler.WatchTelemetry(pb2.WatchTelemetryRequest(agent="agents/a1"), NO_CONTEXT)
    assert not (await anext(stream)).points
    point = PointRecord("disk.used_bytes", world.clock.micros() - 1, 1.5, '{"device":"sda"}')
    await world.writer.submit(StoreBatch("a1", NEWEST, "j1", 1, 0, (point,), world.clock.micros()))
    (watched,) = (await anext(stream)).points
    request = pb2.QueryTelemetryRequest(agent="agents/a1", metric="disk.used_bytes")
    request.start_time.FromMicroseconds(world.clock.micros() - 1)
    request.end_time.FromMicroseconds(world.clock.micros())
    (queried,) = (await handler.QueryTelemetry(request, NO_CONTEXT)).points
    assert queried == watched
    assert queried.agent == "agents/a1"
    assert dict(queried.point.attributes) == {"device": "sda"}
    assert queried.point.time.ToMicroseconds() == world.clock.micros() - 1
    assert queried.receive_time.ToMicroseconds() == world.clock.micros()
