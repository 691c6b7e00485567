"""Statements, connections and waits of a real database file, as metrics tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from controlplane.filtering import read
from controlplane.observability.metrics import Metrics
from controlplane.observability.statements import Tally
from controlplane.storage import migrate
from controlplane.storage.sqlite.database import READERS, SqliteDatabase
from controlplane.tasks.store import creation, delivery, reading


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def database(tmp_path: Path, metrics: Metrics) -> AsyncIterator[SqliteDatabase]:
    migrate.upgrade(tmp_path / "counted.db")
    opened = SqliteDatabase(tmp_path / "counted.db", metrics)
    yield opened
    await opened.close()


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def counted(metrics: Metrics, query: str, engine: str) -> float:
    return sample(metrics, "fleetwright_statement_seconds_count", query=query, engine=engine)


def queries(metrics: Metrics) -> set[str]:
    families = text_string_to_metric_families(metrics.expose().decode())
    return {
        found.labels["query"]
        for family in families
        if family.name == "fleetwright_statement_seconds"
        for found in family.samples
    }


async def test_a_statement_is_counted_for_the_store_function_that_issued_it(
    database: SqliteDatabase, metrics: Metrics
) -> None:
    async with database.reading() as connection:
        for _ in range(3):
            await reading.task(connection, "none")
    assert counted(metrics, "tasks.store.reading.task", "read") == 3
    assert (
        sample(metrics, "fleetwright_statement_seconds_sum", query="tasks.store.reading.task", engine="read")
        > 0
    )


async def test_a_private_function_counts_for_the_public_one_that_awaits_it(
    database: SqliteDatabase, metrics: Metrics
) -> None:
    async with database.unit_of_work() as work:
        await delivery.update_attempts(work, [{"attempt_id": "none", "state": 3}])
    assert counted(metrics, "tasks.store.delivery.update_attempts", "write") == 1


async def test_begin_and_commit_have_names_of_their_own(database: SqliteDatabase, metrics: Metrics) -> None:
    async with database.unit_of_work() as work:
        await work.revision()
    assert counted(metrics, "storage.begin", "write") == 1
    assert counted(metrics, "storage.commit", "write") == 1
    assert counted(metrics, "storage.unit_of_work.revision", "write") == 1


async def test_rows_returned_and_rows_changed_are_counted(database: SqliteDatabase, metrics: Metrics) -> None:
    async with database.unit_of_work() as work:
        for number in range(4):
            await work.connection.execute(
                text(
                    "INSERT INTO task_requests (creator, request_id, digest, created_id, create_time) "
                    "VALUES ('ada', :id, x'00', 't', 1)"
                ),
                {"id": str(number)},
            )
        assert await creation.forget_requests(work, 2) == 4
    assert (
        sample(
            metrics,
            "fleetwright_statement_rows_total",
            query="tasks.store.creation.forget_requests",
            engine="write",
        )
        == 4
    )
    async with database.reading() as connection:
        assert (await connection.execute(text("VALUES (1), (2), (3)"))).all() == [(1,), (2,), (3,)]
    assert sample(metrics, "fleetwright_statement_rows_total", query="other", engine="read") == 3


async def test_a_statement_that_fails_is_counted_as_failed(
    database: SqliteDatabase, metrics: Metrics
) -> None:
    with pytest.raises(DBAPIError):
        async with database.reading() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))
    assert sample(metrics, "fleetwright_statement_failures_total", query="other", engine="read") == 1


async def test_a_hundred_filters_make_one_series(database: SqliteDatabase, metrics: Metrics) -> None:
    async def look(terms: int) -> None:
        chosen = read(" OR ".join(f"priority = {number}" for number in range(terms)), reading.FILTER)
        async with database.reading() as connection:
            await reading.page(connection, chosen, None, 5)

    await look(1)
    before = queries(metrics)
    for terms in range(2, 40):
        await look(terms)
    assert queries(metrics) == before
    assert counted(metrics, "tasks.store.reading.page", "read") == 39


async def test_connections_are_told_by_engine_and_state(database: SqliteDatabase, metrics: Metrics) -> None:
    def connections(engine: str, state: str) -> float:
        return sample(metrics, "fleetwright_database_connections", engine=engine, state=state)

    async with database.unit_of_work(), database.reading(), database.reading():
        assert (connections("write", "used"), connections("read", "used")) == (1, 2)
    assert (connections("write", "used"), connections("read", "used")) == (0, 0)
    assert (connections("write", "idle"), connections("read", "idle")) == (1, 2)


async def test_a_wait_for_a_connection_is_counted_once_it_is_had(
    database: SqliteDatabase, metrics: Metrics
) -> None:
    def waits() -> float:
        return sample(metrics, "fleetwright_database_wait_seconds_count", engine="read")

    released = asyncio.Event()

    async def hold(held: asyncio.Event) -> None:
        async with database.reading():
            held.set()
            await released.wait()

    held = [asyncio.Event() for _ in range(READERS + 1)]
    holding = [asyncio.create_task(hold(event)) for event in held]
    for event in held[:READERS]:
        await event.wait()
    assert waits() == READERS
    released.set()
    await asyncio.gather(*holding)
    assert waits() == READERS + 1


def test_a_query_that_is_met_for_the_first_time_during_a_scrape_does_not_fail_it(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    cumulative = Tally.cumulative

    def meet(tally: Tally) -> list[tuple[str, float]]:
        # A group commit looks its tallies up in the thread of its connection, at any moment.
        metrics.statements.tally("store.new", "write")
        return cumulative(tally)

    metrics.statements.tally("store.known", "write")
    monkeypatch.setattr(Tally, "cumulative", meet)
    assert b"store.known" in metrics.expose()
    assert b"store.new" in metrics.expose()
