"""Transactions and reads that go to the database's thread as a whole, and prepared statements in them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import event, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.errors import Unavailable
from controlplane.storage import migrate
from controlplane.storage.prepared import Prepared, each, listed, updating
from controlplane.storage.schema import commit_counter
from controlplane.storage.sqlite.database import SqliteDatabase
from controlplane.storage.unit_of_work import UnitOfWork

_VALUE = Prepared(select(commit_counter.c.value).where(commit_counter.c.id == 1))
_SET = updating(commit_counter, "id", ("value",))
_INSERT = Prepared(insert(commit_counter), ("id", "value"))
_SOME = Prepared(select(commit_counter.c.id).where(commit_counter.c.id.in_(each("ids"))))


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    migrate.upgrade(tmp_path / "transact.db")
    made = SqliteDatabase(tmp_path / "transact.db")
    yield made
    await made.close()


async def value(database: SqliteDatabase) -> int:
    async def ask(connection: AsyncConnection) -> int:
        return int((await _VALUE.rows(connection, {}))[0].value)

    return await database.read(ask)


async def set_to(work: UnitOfWork, number: int) -> int:
    await _SET.run_each(work.connection, [{"id": 1, "value": number}])
    return number


async def test_a_transaction_is_committed_and_its_waiters_are_told_after_it(database: SqliteDatabase) -> None:
    told: list[str] = []

    async def body(work: UnitOfWork) -> int:
        work.after_commit(lambda: told.append("committed"))
        assert not told
        return await set_to(work, 7)

    assert await database.transact(body) == 7
    assert told == ["committed"]
    assert await value(database) == 7


async def test_what_raises_leaves_nothing_and_tells_nobody(database: SqliteDatabase) -> None:
    before = await value(database)
    told: list[str] = []

    async def body(work: UnitOfWork) -> None:
        work.after_commit(lambda: told.append("committed"))
        await set_to(work, 7)
        raise KeyError("of the body")

    with pytest.raises(KeyError):
        await database.transact(body)
    assert not told
    assert await value(database) == before
    assert await database.transact(lambda work: set_to(work, 8)) == 8


async def test_waiting_for_anything_else_is_refused_and_rolled_back(database: SqliteDatabase) -> None:
    before = await value(database)

    async def body(work: UnitOfWork) -> None:
        await set_to(work, 7)
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="something else than the connection"):
        await database.transact(body)
    assert await value(database) == before
    assert await database.transact(lambda work: set_to(work, 8)) == 8


async def test_a_commit_that_fails_leaves_no_transaction_open(database: SqliteDatabase) -> None:
    before = await value(database)
    engine = database.write_engine.sync_engine

    def refuse(_connection: object) -> None:
        raise OperationalError("COMMIT", None, Exception("refused by the test"))

    event.listen(engine, "commit", refuse)
    with pytest.raises(OperationalError):
        await database.transact(lambda work: set_to(work, 7))
    event.remove(engine, "commit", refuse)
    assert await value(database) == before
    assert await database.transact(lambda work: set_to(work, 8)) == 8


async def test_a_caller_that_leaves_during_a_transaction_hears_of_it_after_its_end(
    database: SqliteDatabase,
) -> None:
    begun, go_on, told = threading.Event(), threading.Event(), asyncio.Event()

    async def body(work: UnitOfWork) -> None:
        work.after_commit(told.set)
        begun.set()
        go_on.wait()  # it runs in a thread of its own
        await set_to(work, 7)

    calling = asyncio.create_task(database.transact(body))
    await asyncio.to_thread(begun.wait)
    calling.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert told.is_set()
    assert await value(database) == 7


async def test_a_read_cannot_write(database: SqliteDatabase) -> None:
    async def write(connection: AsyncConnection) -> None:
        await _SET.run_each(connection, [{"id": 1, "value": 7}])

    with pytest.raises(Unavailable, match="readonly"):
        await database.read(write)


async def test_an_error_of_a_prepared_statement_is_sqlalchemys_and_hides_its_values(
    database: SqliteDatabase,
) -> None:
    async def twice(work: UnitOfWork) -> None:
        await _INSERT.run(work.connection, {"id": 1, "value": 424242})

    with pytest.raises(IntegrityError) as caught:
        await database.transact(twice)
    assert "424242" not in str(caught.value)


async def test_a_list_is_one_value_however_long(database: SqliteDatabase) -> None:
    async def ask(connection: AsyncConnection) -> list[int]:
        rows = await _SOME.rows(connection, {"ids": listed(map(str, range(100_000)))})
        return [row.id for row in rows]

    assert await database.read(ask) == [1]


async def test_a_prepared_statement_works_inside_of_a_unit_of_work(database: SqliteDatabase) -> None:
    async with database.unit_of_work() as work:
        await set_to(work, 7)
        await work.connection.execute(update(commit_counter).values(value=commit_counter.c.value + 1))
    assert await value(database) == 8
