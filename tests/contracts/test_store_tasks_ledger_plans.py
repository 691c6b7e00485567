"""The ledger is large, and no question to it reads all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from controlplane.filtering import read
from controlplane.storage import migrate
from controlplane.storage.sqlite import driver
from controlplane.storage.sqlite.database import SqliteDatabase
from controlplane.tasks.ledger.events import Choice
from controlplane.tasks.store import explaining
from controlplane.tasks.store import ledger as store

EVERYTHING = read("", store.FILTER)


async def plans(folder: Path, choice: Choice) -> list[list[str]]:
    """Return the steps of each question as SQLite would take them."""
    migrate.upgrade(folder / "plans.db")
    database = SqliteDatabase(folder / "plans.db")
    asked: list[str] = []
    try:
        async with database.unit_of_work() as unit:
            await driver.of(unit.connection).set_trace_callback(asked.append)
            await store.page(unit.connection, choice, EVERYTHING, (5, 6), 10)
            await store.lost(unit.connection, choice)
            await store.prune(unit, 5, None, 10)
            await explaining.in_hand(unit.connection, "a")
            await explaining.open_work(unit.connection, "a")
            await driver.of(unit.connection).set_trace_callback(None)  # type: ignore[arg-type]  # the library's types forget it
            return [
                [str(row[-1]) for row in await unit.connection.execute(text(f"EXPLAIN QUERY PLAN {one}"))]
                for one in asked
                if one.startswith(("SELECT", "DELETE"))
            ]
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("used", "choice"),
    [
        ("task_id=", Choice(task_id="t")),
        ("ix_task_events_tasks_of_agent (agent_id=?)", Choice(agent_id="a", start=4)),
        ("time>", Choice(start=4)),
    ],
)
async def test_questions_go_by_an_index(used: str, choice: Choice, tmp_path: Path) -> None:
    page, lost, *others = await plans(tmp_path, choice)
    assert any(used in step for step in page), page
    assert "task_id=" in lost[0], lost
    assert len(others) == 3
    assert [step for plan in (page, lost, *others) for step in plan if step.startswith("SCAN")] == []
