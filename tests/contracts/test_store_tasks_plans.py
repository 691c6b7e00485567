"""Delivery looks at what is open, never at all that is kept: no statement of it scans a whole table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.agents.store import selecting
from controlplane.storage import migrate
from controlplane.storage.sqlite import driver
from controlplane.storage.sqlite.database import SqliteDatabase
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.store import delivery, expansion, reading, waiting

SCANS = ("SCAN tasks", "SCAN task_attempts", "SCAN task_batches")
Question = Callable[[Any], Awaitable[object]]

QUESTIONS: dict[str, Question] = {
    "attempts": lambda c: delivery.attempts(c, ["a", "b"]),
    "live attempts": lambda c: delivery.live_attempts(c, ["a"]),
    "unreported attempts": lambda c: delivery.unreported_attempts(c, ["a"]),
    "queued": lambda c: delivery.queued(c, {"a": 3}, 5),
    "having work": lambda c: delivery.having_work(c, ["a"], 5),
    "agents with work": lambda c: delivery.agents_with_work(c, 5),
    "expired": lambda c: delivery.expired(c, 5, 10),
    "lapsed": lambda c: delivery.lapsed(c, selecting.session_states(), 5, 10),
    "overrun": lambda c: delivery.overrun(c, 5, 10),
    "cancellations": lambda c: delivery.cancellations(c, "a"),
    "assignments": lambda c: delivery.assignments(c, ["a"]),
    "depths": reading.depths,
    "left waiting": lambda c: waiting.left_waiting(c, selecting.living(), 10),
    "missed windows": lambda c: waiting.missed_windows(c, 5, 10),
    "next batch": lambda c: expansion.next_batch(UnitOfWork(c)),
}

OF_SOME = (
    "attempts",
    "live attempts",
    "unreported attempts",
    "queued",
    "having work",
    "cancellations",
    "assignments",
)
"""Those that are about some agents or attempts."""


@pytest.mark.parametrize("name", QUESTIONS)
async def test_statement_of_delivery_scans_no_table(name: str, tmp_path: Path) -> None:
    migrate.upgrade(tmp_path / "plans.db")
    database = SqliteDatabase(tmp_path / "plans.db")
    asked: list[str] = []
    try:
        async with database.reading() as connection:
            await connection.begin()
            await driver.of(connection).set_trace_callback(asked.append)
            await QUESTIONS[name](connection)
            # As it was executed, with its values; what a function such as json_each does inside has a mark.
            statements = [text for text in asked if text.startswith("SELECT")]
            assert statements
            for text in statements:
                rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
                steps = [str(row[-1]) for row in rows]
                scans = [step for step in steps if step in SCANS]
                assert not scans, steps
                if name in OF_SOME:
                    # What waits for others may be much: it is not gone through.
                    assert not [step for step in steps if "ix_tasks_unbegun_by_expiry" in step], steps
    finally:
        await database.close()
