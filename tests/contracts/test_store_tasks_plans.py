"""Delivery looks at what is open, never at all that is kept: no statement of it scans a whole table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from controlplane.agents.store import selecting
from controlplane.storage import migrate
from controlplane.storage.database import Database
from controlplane.tasks.store import delivery, reading

SCANS = ("SCAN tasks", "SCAN task_attempts", "SCAN task_batches")
Question = Callable[[Any], Awaitable[object]]

QUESTIONS: dict[str, Question] = {
    "attempts": lambda c: delivery.attempts(c, ["a", "b"]),
    "live attempts": lambda c: delivery.live_attempts(c, ["a"]),
    "queued": lambda c: delivery.queued(c, {"a": 3}, 5),
    "having work": lambda c: delivery.having_work(c, ["a"], 5),
    "agents with work": lambda c: delivery.agents_with_work(c, 5),
    "expired": lambda c: delivery.expired(c, 5, 10),
    "lapsed": lambda c: delivery.lapsed(c, selecting.session_states(), 5, 10),
    "overrun": lambda c: delivery.overrun(c, 5, 10),
    "cancellations": lambda c: delivery.cancellations(c, "a"),
    "assignments": lambda c: delivery.assignments(c, ["a"]),
    "depths": reading.depths,
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_statement_of_delivery_scans_no_table(name: str, tmp_path: Path) -> None:
    migrate.upgrade(tmp_path / "plans.db")
    database = Database(tmp_path / "plans.db")
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, text: str, values: Any, *_: object) -> None:
        asked.append((text, values))

    event.listen(database.read_engine.sync_engine, "before_cursor_execute", note)
    try:
        async with database.reading() as connection:
            await QUESTIONS[name](connection)
            statements = [(text, values) for text, values in asked if text.startswith("SELECT")]
            assert statements
            for text, values in statements:
                rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
                steps = [str(row[-1]) for row in rows]
                scans = [step for step in steps if step in SCANS]
                assert not scans, steps
    finally:
        await database.close()
