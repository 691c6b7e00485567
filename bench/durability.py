"""What a database promises of a commit, as it says itself: a figure without it compares nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import text

from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.trust.layout import DATABASE

_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


def describe(folder: Path) -> str:
    """Return the durability settings of the connection that the product writes ``folder`` with."""
    return asyncio.run(_describe(folder))


async def _describe(folder: Path) -> str:
    database = Database(folder / DATABASE)
    try:
        return await database.transact(_sqlite)
    finally:
        await database.close()


async def _sqlite(work: UnitOfWork) -> str:
    async def pragma(name: str) -> str:
        return str((await work.connection.execute(text(f"PRAGMA {name}"))).scalar())

    version = (await work.connection.execute(text("SELECT sqlite_version()"))).scalar()
    synchronous = _SYNCHRONOUS[int(await pragma("synchronous"))]
    return f"SQLite {version}, journal_mode={await pragma('journal_mode')}, synchronous={synchronous}"
