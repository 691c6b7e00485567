"""The group-commit writer on a real database file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, insert, select

from controlplane.errors import InvalidArgument, Unavailable
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.storage.schema import commit_counter
from controlplane.storage.sqlite.database import SqliteDatabase
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Operation, Writer

own = MetaData()
notes = Table(
    "notes",
    own,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False),
    Column("text", String(64), nullable=False, unique=True),
    Column("load", LargeBinary),
    Column("revision", BigInteger, nullable=False),
)


@dataclass(frozen=True)
class Note(Operation[str]):
    """Writes one row; its text is unique, and some texts are refused or break."""

    about: str
    text: str
    size: int = 0

    @property
    def key(self) -> str:
        return self.about


class Remark(Note):
    """The same as another type of operation."""


@dataclass
class Bench:
    """A writer under test, and what it did."""

    database: Database
    writer: Writer
    groups: list[int] = field(default_factory=list)
    lists: list[list[str]] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)

    async def apply(self, work: UnitOfWork, operations: Sequence[Note]) -> Sequence[Any]:
        self.lists.append([f"{type(one).__name__} {one.text}" for one in operations])
        revision = await work.revision()
        self.revisions.append(revision)
        for one in operations:
            work.after_commit(partial(self.committed.append, one.text))
        rows = [
            {"key": one.key, "text": one.text, "load": bytes(one.size), "revision": revision}
            for one in operations
            if not one.text.startswith("refused")
        ]
        if rows:
            await work.connection.execute(insert(notes), rows)
        if any(one.text.startswith("poison") for one in operations):
            raise ZeroDivisionError
        if any(one.text.startswith("short") for one in operations):
            return []
        return [
            InvalidArgument("VALIDATION_FAILED", one.text)
            if one.text.startswith("refused")
            else f"{one.text} done"
            for one in operations
        ]

    async def at_once(self, *operations: Note) -> list[Any]:
        """Put operations into the queue together and return their outcomes."""
        futures = [await self.writer.enqueue(one) for one in operations]
        return await asyncio.gather(*futures, return_exceptions=True)

    async def texts(self) -> list[str]:
        async with self.database.reading() as connection:
            return list((await connection.execute(select(notes.c.text).order_by(notes.c.id))).scalars())

    async def counted(self, transactions: int) -> bool:
        """Return whether so many have taken a number; PostgreSQL has numbers of its own."""
        async with self.database.reading() as connection:
            counter = int((await connection.execute(select(commit_counter.c.value))).scalar_one())
        return counter == (transactions if self.on_sqlite else 0)

    @property
    def on_sqlite(self) -> bool:
        return isinstance(self.database, SqliteDatabase)

    async def allow_pages(self, more: int | None) -> None:
        """Let the writing connection add so many pages to the file; None for as many as it likes."""
        async with self.database.write_engine.connect() as connection:
            now = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
            most = 1_000_000 if more is None else now + more
            (await connection.exec_driver_sql(f"PRAGMA max_page_count={most}")).scalar_one()


@pytest_asyncio.fixture
async def bench(location: Location) -> AsyncIterator[Bench]:
    if isinstance(location, Path):
        location = location.rename(location.with_name("odd ?name%20.db"))
    database = open_database(location)
    async with database.write_engine.begin() as connection:
        await connection.run_sync(own.create_all)
    groups: list[int] = []
    made = Bench(database, Writer(database, lambda size, _seconds: groups.append(size)), groups)
    for kind in (Note, Remark):
        made.writer.register(kind, made.apply)
    running = asyncio.create_task(made.writer.run())
    try:
        yield made
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await database.close()


def needs_pages(bench: Bench) -> None:
    if not bench.on_sqlite:
        pytest.skip("SQLite alone can be told how large it may grow; tests/faults fills PostgreSQL's disk")


async def test_operations_that_wait_together_are_committed_together(bench: Bench) -> None:
    outcomes = await bench.at_once(*(Note(str(n), f"t{n}") for n in range(5)))
    assert outcomes == [f"t{n} done" for n in range(5)]
    assert (bench.groups, len(bench.lists)) == ([5], 1)
    assert await bench.counted(1)


async def test_operations_of_one_key_keep_their_order_across_types(bench: Bench) -> None:
    sent = [
        Note("a", "1"),
        Remark("a", "2"),
        Note("a", "3"),
        Remark("b", "4"),
        Note("b", "5"),
        Note("c", "6"),
    ]
    await bench.at_once(*sent)
    assert bench.groups == [6]
    assert bench.lists == [["Note 1", "Note 6"], ["Remark 4"], ["Remark 2"], ["Note 5"], ["Note 3"]]
    stored = await bench.texts()
    for first, second in ("12", "23", "45"):
        assert stored.index(first) < stored.index(second)


async def test_a_poisonous_operation_fails_alone_and_leaves_nothing(bench: Bench) -> None:
    outcomes = await bench.at_once(Note("a", "one"), Note("b", "poison"), Note("c", "two"))
    assert outcomes[0] == "one done"
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert outcomes[2] == "two done"
    assert await bench.texts() == ["one", "two"]
    assert bench.committed == ["one", "two"]


async def test_a_broken_constraint_fails_alone(bench: Bench) -> None:
    outcomes = await bench.at_once(Note("a", "same"), Note("b", "same"), Note("c", "other"))
    assert [type(outcome).__name__ for outcome in outcomes] == ["str", "IntegrityError", "str"]
    assert await bench.texts() == ["same", "other"]


async def test_a_refused_operation_has_its_refusal_and_its_neighbours_commit(bench: Bench) -> None:
    outcomes = await bench.at_once(Note("a", "refused"), Note("b", "kept"))
    assert isinstance(outcomes[0], InvalidArgument)
    assert outcomes[1] == "kept done"
    assert len(bench.lists) == 1


async def test_an_applier_that_answers_too_few_commits_nothing(bench: Bench) -> None:
    (outcome,) = await bench.at_once(Note("a", "short"))
    assert isinstance(outcome, RuntimeError)
    assert await bench.texts() == []


async def test_no_two_transactions_carry_the_same_number_after_one_failed_in_part(bench: Bench) -> None:
    await bench.at_once(Note("a", "poison 1"), Remark("b", "one"), Note("c", "two"))
    await bench.at_once(Note("a", "three"))
    async with bench.database.reading() as connection:
        rows = await connection.execute(select(notes.c.text, notes.c.revision))
        numbers = {row.text: row.revision for row in rows}
    assert numbers["one"] == numbers["two"] < numbers["three"]
    assert await bench.counted(numbers["three"] if bench.on_sqlite else 0)


async def test_a_transaction_in_which_all_failed_takes_no_number(bench: Bench) -> None:
    await bench.at_once(Note("a", "poison"))
    assert await bench.counted(0)
    assert bench.committed == []


@pytest.mark.parametrize(
    "sizes",
    [
        [10, 10, 10, 2_000_000],  # the last one does not fit
        [100_000] * 12,  # each one fits, all together do not
        [2_000_000],
    ],
)
async def test_a_full_disk_keeps_nothing_of_a_group_and_space_lets_the_writer_go_on(
    bench: Bench, sizes: list[int]
) -> None:
    needs_pages(bench)
    await bench.at_once(Note("a", "before"))
    await bench.allow_pages(200)
    kinds = (Note, Remark)
    outcomes = await bench.at_once(*(kinds[at % 2](str(at), f"t{at}", size) for at, size in enumerate(sizes)))
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * len(sizes)
    assert "disk is full" in outcomes[0].message
    assert await bench.texts() == bench.committed == ["before"]
    assert await bench.counted(1)
    await bench.allow_pages(None)
    assert await bench.at_once(Note("a", "t0", 2_000_000), Remark("a", "t1")) == ["t0 done", "t1 done"]
    assert await bench.texts() == ["before", "t0", "t1"]
    assert await bench.counted(2)


async def test_an_administrators_transaction_says_that_the_disk_is_full(bench: Bench) -> None:
    needs_pages(bench)
    await bench.allow_pages(10)
    with pytest.raises(Unavailable, match="disk is full"):
        async with bench.database.unit_of_work() as work:
            await bench.apply(work, [Note("a", "large", 1_000_000)])
    assert (await bench.texts(), bench.committed) == ([], [])
    await bench.allow_pages(None)
    async with bench.database.unit_of_work() as work:
        await bench.apply(work, [Note("a", "small")])
    assert (await bench.texts(), bench.committed) == (["small"], ["small"])


async def test_a_transaction_that_raises_is_undone_with_what_waited_for_it(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        async with bench.database.unit_of_work() as work:
            await bench.apply(work, [Note("a", "undone"), Note("b", "poison")])
    assert (await bench.texts(), bench.committed) == ([], [])
    assert await bench.counted(0)


async def test_closing_commits_what_is_queued_and_refuses_what_comes_after(bench: Bench) -> None:
    futures = [await bench.writer.enqueue(Note(str(n), f"t{n}")) for n in range(50)]
    await bench.writer.close()
    assert all(future.done() for future in futures)
    assert len(await bench.texts()) == 50
    with pytest.raises(Unavailable, match="stopping"):
        await bench.writer.submit(Note("a", "late"))


async def test_a_caller_that_is_cancelled_leaves_its_operation_to_be_committed(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.writer.submit(Note("a", "left")))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await bench.writer.close()
    assert await bench.texts() == ["left"]


async def test_one_type_has_one_applier(bench: Bench) -> None:
    with pytest.raises(ValueError, match="Note has an applier already"):
        bench.writer.register(Note, bench.apply)


async def test_an_operation_without_an_applier_is_not_taken(bench: Bench) -> None:
    class Stranger(Note):
        pass

    with pytest.raises(LookupError, match="Stranger has no applier"):
        await bench.writer.enqueue(Stranger("a", "strange"))
