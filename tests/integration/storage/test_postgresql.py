"""What is PostgreSQL's alone: who writes at the same time, what breaks, what a number means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from controlplane.errors import Unavailable
from controlplane.storage import inspection, migrate
from controlplane.storage.location import Postgres, of_site
from controlplane.storage.migrate import NewerDatabaseError
from controlplane.storage.opening import open_database
from controlplane.storage.postgresql import driver
from controlplane.storage.postgresql import inspection as postgresql_inspection
from controlplane.storage.postgresql.database import PostgresDatabase
from controlplane.storage.prepared import Prepared, updating
from controlplane.storage.unit_of_work import UnitOfWork, horizon
from controlplane.storage.unreadable import DatabaseUnreadableError
from controlplane.storage.watching import Change, Cursor, Seen, watch
from controlplane.tasks.rules import AttemptState
from controlplane.wakeups import WakeUps
from devtools.postgres import PostgresServer

pytestmark = pytest.mark.slow

own = MetaData()
things = Table(
    "things",
    own,
    Column("name", String(8), primary_key=True),
    Column("size", BigInteger),
    Column("good", Boolean),
    Column("load", LargeBinary),
    Column("revision", BigInteger),
)
COLUMNS = ("name", "size", "good", "load", "revision")
_INSERT = Prepared(insert(things), COLUMNS)
_LOCK = Prepared(select(things.c.size).where(things.c.name == bindparam("of")).with_for_update())
_GROW = Prepared(
    update(things).where(things.c.name == bindparam("of")).values(size=things.c.size + bindparam("more"))
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that these tests may stop."""
    with PostgresServer() as started:
        yield started


@pytest_asyncio.fixture
async def database(server: PostgresServer) -> AsyncIterator[PostgresDatabase]:
    place = Postgres(server.create_database("own"))
    migrate.upgrade(place)
    made = open_database(place)
    assert isinstance(made, PostgresDatabase)
    async with made.write_engine.begin() as connection:
        await connection.run_sync(own.create_all)
    yield made
    await made.close()
    server.drop_database("own")


def thing(name: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "size": 0, "good": True, "load": None, "revision": 0, **values}


async def put(database: PostgresDatabase, *rows: dict[str, Any]) -> None:
    async def body(work: UnitOfWork) -> None:
        revision = await work.revision()
        await _INSERT.run_each(work.connection, [{**row, "revision": revision} for row in rows])

    await database.transact(body)


async def stored(database: PostgresDatabase) -> dict[str, Any]:
    async with database.reading() as connection:
        return {row.name: row for row in await connection.execute(select(things))}


async def test_many_rows_go_in_and_change_by_one_statement_each(database: PostgresDatabase) -> None:
    await put(database, *(thing(f"t{n}", size=n, good=n % 2 == 0, load=bytes([n])) for n in range(50)))
    rows = [{"name": f"t{n}", "size": -n, "load": None} for n in range(50)]

    async def change(work: UnitOfWork) -> None:
        await updating(things, "name", ("size", "load")).run_each(work.connection, rows)
        await _GROW.run_each(work.connection, [{"of": "t3", "more": 10}, {"of": "t4", "more": 2**40}])

    await database.transact(change)
    found = await stored(database)
    assert [found[f"t{n}"].size for n in range(5)] == [0, -1, -2, 7, 2**40 - 4]
    assert {found[f"t{n}"].good for n in range(0, 50, 2)} == {True}
    assert {row.load for row in found.values()} == {None}


async def test_a_text_that_is_too_long_is_refused_and_not_cut(database: PostgresDatabase) -> None:
    with pytest.raises(DBAPIError, match="too long"):
        await put(database, thing("ninechars"))
    assert await stored(database) == {}


async def test_a_nul_in_a_text_is_marked(database: PostgresDatabase) -> None:
    await put(database, thing("a\0b"))
    assert list(await stored(database)) == ["a\N{REPLACEMENT CHARACTER}b"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            "TEXT",
            [
                "",
                "NULL",
                "null",
                None,
                "a,b",
                "{}",
                '"',
                "\\",
                '\\"',
                "'",
                " x ",
                "\n\t",
                "\u00e9\U0001f600",
                "x",
            ],
        ),
        ("BIGINT", [0, -1, None, 2**63 - 1, -(2**63), AttemptState.FINISHED]),
        ("DOUBLE PRECISION", [0.1, -0.0, None, 1e300, 5e-324, float("inf"), 7]),
        ("BOOLEAN", [True, None, False]),
        ("BYTEA", [b"", b"\\", None, b'"', bytes(range(256))]),
        ("TEXT", [None, None]),
        ("TEXT", []),
    ],
)
async def test_lists_arrive_as_they_are(database: PostgresDatabase, kind: str, values: list[object]) -> None:
    async with database.reading() as connection:
        await connection.begin()
        text_ = (
            f"SELECT value FROM unnest(%(values)s::{kind}[]) WITH ORDINALITY AS given(value, n) ORDER BY n"
        )
        rows = await driver.of(connection).fetch(text_, {"values": values})
    assert [value for (value,) in rows] == values


async def test_a_list_of_what_is_no_value_is_refused(database: PostgresDatabase) -> None:
    async with database.reading() as connection:
        await connection.begin()
        with pytest.raises(psycopg.DataError, match="values of type object"):
            await driver.of(connection).fetch("SELECT %(values)s::TEXT[]", {"values": [object()]})


async def test_transactions_that_wait_for_each_other_both_take_place(database: PostgresDatabase) -> None:
    await put(database, thing("a"), thing("b"))
    met = asyncio.Barrier(2)
    begun: list[str] = []

    async def both(work: UnitOfWork, first: str, second: str) -> None:
        begun.append(first)
        await _LOCK.rows(work.connection, {"of": first})
        if len(begun) <= 2:
            await met.wait()  # now each holds what the other is about to want
        await _GROW.run(work.connection, {"of": second, "more": 1})
        await _GROW.run(work.connection, {"of": first, "more": 1})

    await asyncio.gather(
        database.transact(lambda work: both(work, "a", "b")),
        database.transact(lambda work: both(work, "b", "a")),
    )
    assert {name: row.size for name, row in (await stored(database)).items()} == {"a": 2, "b": 2}
    assert len(begun) == 3


async def test_numbers_of_transactions_that_run_at_once_are_above_the_horizon(
    database: PostgresDatabase,
) -> None:
    async with database.unit_of_work() as early:
        number = await early.revision()
        async with database.unit_of_work() as later:
            assert await later.revision() > number
        assert await database.read(horizon) == number
        assert await early.revision() == number
    assert await database.read(horizon) > number


async def test_a_watch_tells_of_nothing_before_what_may_still_come_before_it(
    database: PostgresDatabase,
) -> None:
    wakeups = WakeUps()

    async def above(cursor: Cursor, limit: int) -> Any:
        async def ask(connection: Any) -> list[Seen[str]]:
            statement = (
                select(things.c.name, things.c.revision)
                .where(things.c.revision > cursor[0])
                .order_by(things.c.revision, things.c.name)
                .limit(limit)
            )
            rows = await connection.execute(statement)
            return [Seen(row.name, (row.revision, row.name), True) for row in rows]

        return await database.look(ask, lambda seen: seen.revision)

    async with aclosing(watch(wakeups, "things", None, above)) as changes:
        assert (await anext(changes))[0] is Change.SYNCED
        async with database.unit_of_work() as early:
            await _INSERT.run(early.connection, thing("early", revision=await early.revision()))
            await put(database, thing("later"))
            wakeups.notify("things")
            looking = asyncio.ensure_future(anext(changes))
            look = await above((0, ""), 10)
            assert (look.rows, look.behind) == ([], True)
        assert [(await looking)[1], (await anext(changes))[1]] == ["early", "later"]


async def test_a_snapshot_stays_as_it_was_and_writes_nothing(database: PostgresDatabase) -> None:
    await put(database, thing("a"))
    async with database.reading() as connection:
        before = (await connection.execute(select(things.c.name))).scalars().all()
        await put(database, thing("b"))
        assert (await connection.execute(select(things.c.name))).scalars().all() == before
        with pytest.raises(DBAPIError, match="read-only"):
            await connection.execute(insert(things), thing("c"))
    assert list(await stored(database)) == ["a", "b"]


async def test_a_commit_is_durable_whatever_the_role_says(
    database: PostgresDatabase, server: PostgresServer
) -> None:
    server.query("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        async with database.unit_of_work() as work:
            shown = await work.connection.execute(text("SHOW synchronous_commit"))
            assert shown.scalar_one() == "on"
    finally:
        server.query("ALTER ROLE postgres RESET synchronous_commit")


async def test_a_server_that_is_gone_is_unavailable_and_what_was_acknowledged_is_there_when_it_is_back(
    database: PostgresDatabase, server: PostgresServer
) -> None:
    await put(database, thing("before"))
    await asyncio.to_thread(server.kill)
    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await put(database, thing("lost"))
        with pytest.raises(Unavailable, match="cannot be reached"):
            await stored(database)
    await asyncio.to_thread(server.start)
    await put(database, thing("after"))
    assert sorted(await stored(database)) == ["after", "before"]


async def test_a_transaction_that_loses_its_connection_is_unavailable(
    database: PostgresDatabase, server: PostgresServer
) -> None:
    async def interrupted() -> None:
        async with database.unit_of_work() as work:
            await _INSERT.run(work.connection, thing("half"))
            asked = await work.connection.execute(text("SELECT pg_backend_pid()"))
            server.query(f"SELECT pg_terminate_backend({asked.scalar_one()}, 5000)")
            await _INSERT.run(work.connection, thing("more"))

    with pytest.raises(Unavailable, match="cannot be reached"):
        await interrupted()
    assert await stored(database) == {}


async def test_two_that_upgrade_at_once_both_find_the_schema(server: PostgresServer) -> None:
    place = Postgres(server.create_database("twice"))
    done = await asyncio.gather(*(asyncio.to_thread(migrate.upgrade, place) for _ in range(2)))
    assert sorted(before or "" for before, _ in done) == ["", migrate.head()]
    assert inspection.schema_version(place) == migrate.head()
    server.drop_database("twice")


def test_a_newer_database_is_refused_untouched(server: PostgresServer) -> None:
    place = Postgres(server.create_database("newer"))
    migrate.upgrade(place)
    server.query("UPDATE alembic_version SET version_num = '9999'", "newer")
    with pytest.raises(NewerDatabaseError, match="written by a newer one"):
        migrate.upgrade(place)
    server.drop_database("newer")


def test_numbers_go_on_in_another_server(server: PostgresServer) -> None:
    """As after a dump was restored into a server whose own numbers are lower."""
    place = Postgres(server.create_database("restored"))
    migrate.upgrade(place)
    server.query("UPDATE commit_counter SET value = 0", "restored")
    server.query(
        "INSERT INTO agents (agent_id, presence, presence_time, presence_reason, enroll_time, update_time, "
        "revision) VALUES ('a1', 1, 0, 1, 0, 0, 9000000)",
        "restored",
    )
    migrate.upgrade(place)
    numbers = "SELECT value + pg_current_xact_id()::text::bigint FROM commit_counter"
    ((number,),) = server.query(numbers, "restored")
    assert 9_000_000 < number < 9_000_100
    before = server.query("SELECT value FROM commit_counter", "restored")
    migrate.upgrade(place)
    assert server.query("SELECT value FROM commit_counter", "restored") == before
    server.drop_database("restored")


def test_each_database_has_a_history_of_its_own(server: PostgresServer) -> None:
    first, second = (Postgres(server.create_database(name)) for name in ("one", "two"))
    assert inspection.history(first) == inspection.history(first) != inspection.history(second)
    assert inspection.schema_version(first) is None
    assert postgresql_inspection.settings(first)["fsync"] == "on"
    for name in ("one", "two"):
        server.drop_database(name)


def test_a_password_is_shown_nowhere(server: PostgresServer) -> None:
    url = "postgresql://fleet:s3cret@127.0.0.1:1/nowhere?sslpassword=s3cret"
    place = of_site(url, Path("unused"))
    said = [str(place), repr(place)]
    with pytest.raises(migrate.DatabaseUnusableError) as refused:
        migrate.upgrade(place)
    with pytest.raises(DatabaseUnreadableError) as unread:
        inspection.schema_version(place)
    with pytest.raises(ValueError, match="no connection string") as odd:
        of_site("postgresql://fleet:s3cret@[/nowhere", Path("unused"))
    said += [str(error.value) for error in (refused, unread, odd)]
    assert not [one for one in said if "s3cret" in one]
    assert "look whether the server runs" in str(refused.value)
