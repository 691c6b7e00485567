"""The time by which leases are judged: one clock for all processes, whatever their machines believe."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.clock import Clock, to_micros

# Of the statement, not of the transaction: one that waited for a lock must not judge by when it began.
_MICROS = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")


async def database_now(connection: AsyncConnection, clock: Clock) -> int:
    """Return the time in microseconds: the database's own, or ``clock``'s where the database is embedded."""
    if connection.dialect.name == "postgresql":
        return int((await connection.execute(_MICROS)).scalar_one())
    return to_micros(clock.now())
