"""What is gathered in a transaction and written just before its commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
import pytest_asyncio
from sqlalchemy import insert, select

from controlplane.observability.metrics import Metrics
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.storage.prepared import Prepared
from controlplane.storage.schema import commit_counter
from controlplane.storage.unit_of_work import UnitOfWork

_INSERT = Prepared(insert(commit_counter), ("id", "value"))
_ALL = Prepared(select(commit_counter.c.id).where(commit_counter.c.id > 1).order_by(commit_counter.c.id))

Body = Callable[[UnitOfWork], Awaitable[None]]
Run = Callable[[Database, Body], Awaitable[None]]


async def in_unit_of_work(database: Database, body: Body) -> None:
    async with database.unit_of_work() as work:
        await body(work)


async def in_one_hop(database: Database, body: Body) -> None:
    async def whole(work: UnitOfWork) -> None:
        await body(work)

    await database.transact(whole)


both = pytest.mark.parametrize("run", [in_unit_of_work, in_one_hop])


@pytest_asyncio.fixture
async def database(location: Location) -> AsyncIterator[Database]:
    made = open_database(location, Metrics())
    yield made
    await made.close()


class Numbers:
    """Writes numbers as rows, and remembers in how many calls they came."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    async def __call__(self, work: UnitOfWork, numbers: list[int]) -> None:
        self.calls.append(numbers)
        await _INSERT.run_each(work.connection, [{"id": number, "value": 0} for number in numbers])


async def stored(database: Database) -> list[int]:
    async with database.reading() as connection:
        return [row.id for row in await _ALL.rows(connection, {})]


@both
async def test_what_many_parts_gather_is_written_at_once_and_before_the_waiters_are_told(
    run: Run, database: Database
) -> None:
    write, others = Numbers(), Numbers()
    told: list[int] = []

    async def body(work: UnitOfWork) -> None:
        work.before_commit(write, [2, 3])
        work.before_commit(others, [7])
        work.before_commit(write, [])
        work.before_commit(write, [4])
        work.after_commit(lambda: told.append(len(write.calls)))
        assert not write.calls

    await run(database, body)
    assert (write.calls, others.calls, told) == ([[2, 3, 4]], [[7]], [1])
    assert await stored(database) == [2, 3, 4, 7]


@both
async def test_a_savepoint_takes_with_it_what_was_gathered_in_it(run: Run, database: Database) -> None:
    write = Numbers()

    async def body(work: UnitOfWork) -> None:
        work.before_commit(write, [2])
        with suppress(KeyError):
            async with work.savepoint():
                work.before_commit(write, [3])
                raise KeyError("of the savepoint")
        async with work.savepoint():
            work.before_commit(write, [4])

    await run(database, body)
    assert write.calls == [[2, 4]]
    assert await stored(database) == [2, 4]


@both
async def test_what_raises_writes_nothing_of_it(run: Run, database: Database) -> None:
    write = Numbers()

    async def body(work: UnitOfWork) -> None:
        work.before_commit(write, [2])
        raise KeyError("of the body")

    with pytest.raises(KeyError):
        await run(database, body)
    assert (write.calls, await stored(database)) == ([], [])


@both
async def test_a_write_that_fails_leaves_nothing_of_the_transaction(run: Run, database: Database) -> None:
    write = Numbers()
    told: list[str] = []

    async def fail(work: UnitOfWork, items: list[str]) -> None:
        raise KeyError(items[0])

    async def body(work: UnitOfWork) -> None:
        work.after_commit(lambda: told.append("committed"))
        work.before_commit(write, [2])
        work.before_commit(fail, ["bad"])

    with pytest.raises(KeyError, match="bad"):
        await run(database, body)
    assert (told, await stored(database)) == ([], [])


@both
async def test_what_is_gathered_while_it_is_written_is_written_too(run: Run, database: Database) -> None:
    write = Numbers()

    async def more(work: UnitOfWork, items: list[int]) -> None:
        work.before_commit(write, [item + 1 for item in items])

    async def body(work: UnitOfWork) -> None:
        work.before_commit(more, [2])

    await run(database, body)
    assert await stored(database) == [3]
