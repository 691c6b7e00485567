"""Deployments are kept for long: to ask about some is not to go through all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.filtering import read
from controlplane.packaging.store import deployments as stored
from controlplane.storage import migrate
from controlplane.storage.sqlite import driver
from controlplane.storage.sqlite.database import SqliteDatabase
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.store import following

Question = Callable[[Any], Awaitable[object]]
EVERYTHING = read("", stored.FILTER)
OF_AGENT = read("agent_id = a1 AND latest = true", stored.FILTER)
OF_BATCH = read("batch_id = b1", stored.FILTER)

QUESTIONS: dict[str, Question] = {
    "followed": lambda c: stored.followed(UnitOfWork(c), following.changed("install", 7, {"t1", "t2"})),
    "followed, nothing said": lambda c: stored.followed(UnitOfWork(c), following.changed("install", 7, ())),
    "left behind": lambda c: stored.left_behind(c, following.all_of("install"), 4, 500),
    "first page": lambda c: stored.page(c, EVERYTHING, None, 100),
    "next page": lambda c: stored.page(c, EVERYTHING, (5, "t1"), 100),
    "of an agent": lambda c: stored.page(c, OF_AGENT, None, 100),
    "counts of a batch": lambda c: stored.status_counts(c, OF_BATCH),
    "holders": lambda c: stored.holders(c, "a" * 64, "", 100),
    "installed counts": lambda c: stored.installed_counts(c, ["a" * 64, "b" * 64]),
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_statement_of_deployments_scans_no_table(name: str, tmp_path: Path) -> None:
    migrate.upgrade(tmp_path / "plans.db")
    database = SqliteDatabase(tmp_path / "plans.db")
    asked: list[str] = []
    try:
        async with database.reading() as connection:
            await connection.begin()
            await driver.of(connection).set_trace_callback(asked.append)
            await QUESTIONS[name](connection)
            statements = [text for text in asked if text.startswith("SELECT")]
            assert statements
            for text in statements:
                rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
                steps = [str(row[-1]) for row in rows]
                assert not [step for step in steps if step in ("SCAN tasks", "SCAN deployments")], steps
                in_order = "page" not in name or not [step for step in steps if "TEMP B-TREE" in step]
                assert in_order, steps
    finally:
        await database.close()
