"""What every driver's connection can do below SQLAlchemy: the road of prepared statements.

Each backend has a driver of its own (``sqlite/driver.py``, ``postgresql/driver.py``). It counts what it is
asked, and gives whole results, which are small here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.statements import Statements


class DriverConnection(Protocol):
    """One connection to a database, as its driver knows it."""

    statements: Statements

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; False too where the database ended it, or the connection."""

    @property
    def usable(self) -> bool:
        """Whether the connection still leads to the database."""

    async def fetch(self, text: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute and return all rows."""

    async def change(self, text: str, values: Mapping[str, Any]) -> int:
        """Execute and return how many rows it changed."""

    async def change_each(self, text: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute once for each of ``rows``."""

    async def commit(self) -> None:
        """Commit."""

    async def rollback(self) -> None:
        """Roll back."""


def of(connection: AsyncConnection) -> DriverConnection:
    """Return the driver's connection below SQLAlchemy's."""
    proxied: Any = connection.sync_connection
    own: DriverConnection = proxied.connection.driver_connection
    return own
