"""What a database promises of a commit, as it says itself: a figure without it compares nothing."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from controlplane.storage.location import Location, Postgres
from controlplane.storage.opening import open_database
from controlplane.storage.unit_of_work import UnitOfWork

_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


def describe(location: Location) -> str:
    """Return the durability settings of the connection that the product writes with."""
    return asyncio.run(_describe(location))


async def _describe(location: Location) -> str:
    database = open_database(location)
    try:
        return await database.transact(_postgresql if isinstance(location, Postgres) else _sqlite)
    finally:
        await database.close()


async def _sqlite(work: UnitOfWork) -> str:
    async def pragma(name: str) -> str:
        return str((await work.connection.execute(text(f"PRAGMA {name}"))).scalar())

    version = (await work.connection.execute(text("SELECT sqlite_version()"))).scalar()
    synchronous = _SYNCHRONOUS[int(await pragma("synchronous"))]
    return f"SQLite {version}, journal_mode={await pragma('journal_mode')}, synchronous={synchronous}"


async def _postgresql(work: UnitOfWork) -> str:
    async def shown(name: str) -> str:
        return str((await work.connection.execute(text(f"SHOW {name}"))).scalar())

    said = [f"{name}={await shown(name)}" for name in ("fsync", "full_page_writes", "synchronous_commit")]
    return f"PostgreSQL {await shown('server_version')}, {', '.join(said)}"
