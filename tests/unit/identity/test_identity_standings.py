from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.identity.rules import Standing
from controlplane.identity.store import certificates
from controlplane.storage.gathered_reads import GatheredReads
from controlplane.storage.schema import metadata
from controlplane.storage.sqlite.database import SqliteDatabase
from tests.unit.identity.world import World, caller_of


async def test_questions_that_come_together_are_read_together(world: World) -> None:
    token = await world.token(max_uses=50)
    agents = [f"node-{number}" for number in range(20)]
    callers = [caller_of((await world.enroll(agent, token)).certificate, agent) for agent in agents]
    asked: list[int] = []

    async def read(connection: AsyncConnection, serials: Sequence[str]) -> Mapping[str, Standing]:
        asked.append(len(serials))
        return await certificates.standings(connection, serials)

    standings = GatheredReads(world.database, read)
    found = await asyncio.gather(*(standings.find(caller.serial) for caller in callers))
    assert [standing and standing.agent_id for standing in found] == agents
    assert asked == [20]


async def test_an_answer_is_never_older_than_its_question(world: World) -> None:
    caller = caller_of((await world.enroll()).certificate)
    standings = GatheredReads(world.database, certificates.standings)
    before = await standings.find(caller.serial)
    async with world.database.unit_of_work() as work:
        await world.identity.deny_agent(work, "node-1", "a test", world.clock.now())
    assert await standings.find(caller.serial) != before


async def test_who_stops_waiting_takes_no_answer_from_others(world: World) -> None:
    caller = caller_of((await world.enroll()).certificate)
    standings = GatheredReads(world.database, certificates.standings)
    impatient = asyncio.create_task(standings.find(caller.serial))
    patient = asyncio.create_task(standings.find(caller.serial))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient is not None


async def test_a_failing_read_fails_those_who_asked_and_no_one_later(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "young.db")
    standings = GatheredReads(database, certificates.standings)
    with pytest.raises(OperationalError):
        await standings.find("abc")
    async with database.write_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    assert await standings.find("abc") is None
    await database.close()
