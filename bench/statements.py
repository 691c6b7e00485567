"""What one small SQLite read costs through our engine, beside the same through plain aiosqlite.

Times are CPU of the whole process, threads included, in microseconds a statement.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import uvloop
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bench.figures import Window
from controlplane.storage.sqlite.database import SqliteDatabase

_READ = text("SELECT value FROM numbers WHERE id = :id")


async def _cost(engine: AsyncEngine, statements: int) -> float:
    async with engine.connect() as connection:
        for id_ in range(100):
            (await connection.execute(_READ, {"id": id_})).all()
        began = time.process_time()
        for id_ in range(statements):
            (await connection.execute(_READ, {"id": id_ % 1000})).all()
        return (time.process_time() - began) / statements * 1e6


async def _measure(path: Path, statements: int) -> Window:
    url = URL.create("sqlite+aiosqlite", database=str(path))
    plain = create_async_engine(url)
    async with plain.begin() as connection:
        await connection.execute(text("CREATE TABLE numbers (id INTEGER PRIMARY KEY, value INTEGER)"))
        rows = [{"id": id_, "value": id_} for id_ in range(1000)]
        await connection.execute(text("INSERT INTO numbers VALUES (:id, :value)"), rows)
    ours = SqliteDatabase(path)
    window = Window(await _cost(plain, statements), await _cost(ours.read_engine, statements))
    await plain.dispose()
    await ours.close()
    return window


def measure(statements: int) -> Window:
    """Measure so many statements each way."""
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(_measure(Path(folder) / "bench.db", statements))
