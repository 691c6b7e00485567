"""A caller that goes away while its transaction commits does not take the news with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from controlplane.storage import migrate
from controlplane.storage.sqlite import driver
from controlplane.storage.sqlite.database import SqliteDatabase


async def test_cancelling_during_the_commit_still_tells_who_waits_for_it(tmp_path: Path) -> None:
    migrate.upgrade(tmp_path / "x.db")
    database = SqliteDatabase(tmp_path / "x.db")
    told: list[int] = []
    committing = asyncio.Event()
    event.listen(database.write_engine.sync_engine, "commit", lambda _: committing.set())

    async def change() -> None:
        async with database.unit_of_work() as work:
            revision = await work.revision()
            work.after_commit(lambda: told.append(revision))

    caller = asyncio.create_task(change())
    await committing.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert told == [1]
    async with database.unit_of_work() as work:
        assert await work.revision() == 2
    await database.close()


async def test_closing_waits_for_connections_in_use(tmp_path: Path) -> None:
    migrate.upgrade(tmp_path / "x.db")
    database = SqliteDatabase(tmp_path / "x.db")
    used: list[driver.Connection] = []
    asking, answered = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        async with database.reading() as connection:
            used.append(driver.of(connection))
            asking.set()
            await answered.wait()

    caller = asyncio.create_task(ask())
    await asking.wait()
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    assert not closing.done()
    answered.set()
    await asyncio.gather(caller, closing)
    assert [connection._connection for connection in used] == [None]


async def test_values_of_a_failed_statement_do_not_stand_in_its_error(tmp_path: Path) -> None:
    migrate.upgrade(tmp_path / "x.db")
    database = SqliteDatabase(tmp_path / "x.db")

    async def insert_twice() -> None:
        async with database.unit_of_work() as work:
            for _ in range(2):
                await work.connection.exec_driver_sql(
                    "INSERT INTO task_requests VALUES (?, ?, ?, ?, ?)", ("me", "id", b"d", "the-secret", 1)
                )

    with pytest.raises(IntegrityError) as caught:
        await insert_twice()
    assert "the-secret" not in str(caught.value)
    await database.close()
