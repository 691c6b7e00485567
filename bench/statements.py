"""What one small SQLite read costs through our driver, beside the same through plain aiosqlite.

Run it with ``python -m bench.statements``; it prints one JSON object. Times are CPU of the
whole process, threads included, in microseconds a statement.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import uvloop
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from controlplane.storage import driver

STATEMENTS = 3_000
_READ = text("SELECT value FROM numbers WHERE id = :id")


async def _cost(engine: AsyncEngine) -> float:
    async with engine.connect() as connection:
        for id_ in range(100):
            (await connection.execute(_READ, {"id": id_})).all()
        began = time.process_time()
        for id_ in range(STATEMENTS):
            (await connection.execute(_READ, {"id": id_ % 1000})).all()
        return (time.process_time() - began) / STATEMENTS * 1e6


async def _measure(path: Path) -> dict[str, float | str]:
    url = URL.create("sqlite+aiosqlite", database=str(path))
    plain = create_async_engine(url)
    ours = create_async_engine(url, async_creator=lambda: driver.connect(path))
    async with plain.begin() as connection:
        await connection.execute(text("CREATE TABLE numbers (id INTEGER PRIMARY KEY, value INTEGER)"))
        rows = [{"id": id_, "value": id_} for id_ in range(1000)]
        await connection.execute(text("INSERT INTO numbers VALUES (:id, :value)"), rows)
    yardstick, value = await _cost(plain), await _cost(ours)
    await plain.dispose()
    await ours.dispose()
    return {
        "name": "CPU of a small read, us",
        "yardstick": round(yardstick, 1),
        "value": round(value, 1),
        "ratio": round(value / yardstick, 2),
    }


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(uvloop.run(_measure(Path(folder) / "bench.db"))))


if __name__ == "__main__":
    main()
