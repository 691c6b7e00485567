"""Use cases of pipelines and watches of them, on real databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
import pytest_asyncio

from controlplane.errors import InvalidArgument
from controlplane.packaging.paging import Asked, Pages
from controlplane.packaging.rules import PipelineState, Stage
from controlplane.packaging.service import NewPipeline, PipelinesService, Shown
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store import queue, uploads
from controlplane.packaging.store.uploads import UploadRecord
from controlplane.packaging.watching import Watches
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.wakeups import WakeUps
from tests.contracts.agents_world import OPERATOR, SECRET, SetClock

ARTEFACT = "a" * 64


class _World:
    def __init__(self, database: Database) -> None:
        self.database, self.wakeups, self.clock = database, WakeUps(), SetClock()
        pages = Pages(SECRET)
        self.pipelines = PipelinesService(database, self.wakeups, self.clock, pages, "stable", self._channels)
        self.watches = Watches(database, self.wakeups, pages)

    async def _channels(self) -> Sequence[str]:
        return ["stable", "beta"]

    async def create(self, request_id: str = "", **fields: object) -> str:
        self.clock.advance(1)
        new = NewPipeline(ARTEFACT, **fields)  # type: ignore[arg-type]  # what a test names
        return (await self.pipelines.create(OPERATOR, new, request_id)).pipeline.pipeline_id

    async def change(self, pipeline_id: str, **values: object) -> None:
        async with self.database.unit_of_work() as work:
            await stored.change(work, pipeline_id, **values)


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[_World]:
    database = open_database(location)
    made = _World(database)
    upload = UploadRecord("u1", "x.whl", 1, ARTEFACT, 1, True, "ada", 1, 2)
    async with database.unit_of_work() as work:
        await uploads.complete(work, upload, 1)
    yield made
    await database.close()


def ids(found: Sequence[Shown]) -> list[str]:
    return [one.pipeline.pipeline_id for one in found]


async def test_pages_go_from_the_newest_to_the_oldest_and_belong_to_their_filter(world: _World) -> None:
    made = [await world.create(on_demand=True) for _ in range(3)]
    first = await world.pipelines.list_pipelines(Asked("state = CREATED", 2))
    assert (ids(first.rows), first.total) == (made[:0:-1], 3)
    rest = await world.pipelines.list_pipelines(Asked("state = CREATED", 2, first.next_page_token))
    assert (ids(rest.rows), rest.next_page_token, rest.total) == (made[:1], "", 0)
    with pytest.raises(InvalidArgument):
        await world.pipelines.list_pipelines(Asked("state = QUEUED", 2, first.next_page_token))


async def test_the_same_request_makes_one_pipeline_also_at_the_same_time(world: _World) -> None:
    made = await asyncio.gather(*(world.create("r1", build_id="b") for _ in range(3)), return_exceptions=True)
    # Of calls at the same moment one may be told to try again; none makes another pipeline.
    assert len({one for one in made if isinstance(one, str)}) == 1
    assert (await world.pipelines.list_pipelines(Asked())).total == 1
    with pytest.raises(InvalidArgument, match="r1"):
        await world.create("r1", build_id="c")


async def test_a_watch_sends_what_matches_what_changes_and_what_matches_no_longer(world: _World) -> None:
    one = await world.create(on_demand=True)
    async with aclosing(world.watches.pipelines("state = CREATED", "")) as watch:
        found, token = await anext(watch)
        assert (ids(found), len(found[0].stages)) == ([one], 7)
        other = await world.create(on_demand=True)
        found, _ = await anext(watch)
        assert ids(found) == [other]
        await world.pipelines.execute(one)
        found, _ = await anext(watch)
        assert [(one.pipeline.pipeline_id, one.pipeline.state) for one in found] == [
            (one, PipelineState.QUEUED)
        ]
    async with aclosing(world.watches.pipelines("state = CREATED", token)) as resumed:
        found, _ = await anext(resumed)
        assert ids(found) == [other]


async def test_a_long_list_is_watched_in_messages_of_a_hundred(world: _World) -> None:
    for _ in range(130):
        await world.create(on_demand=True)
    async with aclosing(world.watches.pipelines("", "")) as watch:
        assert [len((await anext(watch))[0]) for _ in range(2)] == [100, 30]


async def test_a_log_is_followed_to_the_end_of_its_pipeline(world: _World) -> None:
    made = await world.create()
    lines = [stored.LogLine(number, 1, Stage.INTAKE, "info", "x" * 4_000) for number in range(1, 801)]
    async with world.database.unit_of_work() as work:
        await stored.append_log(work, made, lines)
    async with aclosing(world.watches.log(made, 0, follow_it=True)) as log:
        first, second = await anext(log), await anext(log)
        assert [line.number for line in (*first, *second)] == list(range(1, 801)), "messages stay small"
        assert len(first) < 800
        waiting = asyncio.ensure_future(anext(log, None))
        await world.change(made, state=int(PipelineState.ERROR))
        world.wakeups.notify("pipelines")
        assert await waiting is None
    async with aclosing(world.watches.log(made, 799, follow_it=False)) as log:
        assert [[line.number for line in page] async for page in log] == [[800]]


async def test_what_is_under_way_is_counted_and_listed_oldest_first(world: _World) -> None:
    made = [await world.create() for _ in range(2)]
    await world.change(made[0], state=int(PipelineState.RUNNING), cancel_requested=True)
    await world.create(on_demand=True)
    counts = await world.pipelines.counts()
    assert [counts[state] for state in (PipelineState.CREATED, PipelineState.QUEUED)] == [1, 1]
    assert counts[PipelineState.RUNNING] == 1
    async with world.database.reading() as connection:
        assert [run.pipeline_id for run in await queue.under_way(connection, 10)] == made
        assert [run.pipeline_id for run in await queue.waiting(connection, 10)] == made[1:]
        assert await queue.to_stop(connection, made) == made[:1]
