"""Deleting much in many small transactions, so that nobody who writes waits for all of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Slice:
    """What one transaction deleted, and whether there may be more."""

    deleted: int
    more: bool


async def delete_in_slices(database: Database, delete: Callable[[UnitOfWork], Awaitable[Slice]]) -> int:
    """Run ``delete`` in a transaction of its own until nothing is left; returns how much that was.

    Whoever waits to write comes in between two slices. What an end in the middle leaves is for the next run.
    """
    deleted = 0
    while True:
        async with database.unit_of_work() as work:
            done = await delete(work)
        deleted += done.deleted
        if not done.more:
            return deleted
