"""PostgreSQL: many connections write at once, from many processes.

READ COMMITTED, so whoever reads a row in order to change it locks it (``FOR UPDATE``). What two
transactions take in different orders the server resolves by ending one of them, which is begun anew.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import IsolationLevel
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controlplane.errors import ServiceError, Unavailable
from controlplane.observability.metrics import Metrics
from controlplane.storage.database import Database, Look, make_engine
from controlplane.storage.location import Postgres
from controlplane.storage.postgresql.driver import Connection, connect
from controlplane.storage.statements import Statements
from controlplane.storage.unit_of_work import UnitOfWork, horizon

T = TypeVar("T")

WRITERS = 4
READERS = 4
"""Connections of one process; a site's processes share the server's ``max_connections``."""

ATTEMPTS = 8
"""How often a transaction is begun that others got in the way of."""

_RETRY_BASE = 0.005
"""Seconds before the second attempt, doubled for each further one; half of it by chance."""

_OPTIONS: dict[str, Any] = {
    "application_name": "fleetwright",
    "connect_timeout": 5,
    # A server that is gone without a word, as after a cut of the network, is found in some ten seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # Durable means after a power cut, whatever the server's or the role's own default is.
    "options": (
        "-c synchronous_commit=on -c lock_timeout=10s -c statement_timeout=60s "
        "-c idle_in_transaction_session_timeout=60s"
    ),
}
_AGAIN = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_KEY_EXISTS = "23505"
_UNREACHABLE = ("08", "57P")  # connection exceptions; shutdown, crash, starting up
_REASONS = {
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "53300": "it has no connection left: raise max_connections",
    "25006": "it is read-only",
    "55P03": "others hold a lock for too long",
    "57014": "it took too long",
}


def _engine(place: Postgres, size: int, statements: Statements, *, read_only: bool) -> AsyncEngine:
    async def make() -> Connection:
        connection = await connect(place.conninfo, statements, **_OPTIONS)
        if read_only:
            await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
        return connection

    return make_engine("postgresql+psycopg://", make, size)


class PostgresDatabase(Database):
    """A database of a PostgreSQL server, 18 or newer, which other processes use too."""

    def __init__(self, place: Postgres, metrics: Metrics | None = None) -> None:
        self.place = place
        metrics = metrics or Metrics()
        super().__init__(
            _engine(place, WRITERS, Statements(metrics, "write"), read_only=False),
            _engine(place, READERS, Statements(metrics, "read"), read_only=True),
            metrics,
        )

    def refusal(self, error: DBAPIError) -> ServiceError | None:
        """Return the refusal where the server is gone or cannot write, or others were in the way."""
        state = getattr(error.orig, "sqlstate", None)
        if state is None:
            broken = isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError)
            return Unavailable("UNAVAILABLE", "the database cannot be reached") if broken else None
        if state.startswith(_UNREACHABLE):
            return Unavailable("UNAVAILABLE", "the database cannot be reached")
        if state in _AGAIN:
            return Unavailable("UNAVAILABLE", "others changed the same at the same moment; try again")
        reason = _REASONS.get(state)
        return None if reason is None else Unavailable("UNAVAILABLE", f"the database refuses: {reason}")

    def is_transient(self, error: DBAPIError) -> bool:
        """Return whether others were in the way, so that the same transaction may be begun anew."""
        return getattr(error.orig, "sqlstate", None) in _AGAIN

    def collided(self, error: DBAPIError) -> bool:
        """Return whether another transaction has just written a key that this one was about to write."""
        return getattr(error.orig, "sqlstate", None) == _KEY_EXISTS

    async def transact(self, body: Callable[[UnitOfWork], Coroutine[Any, Any, T]]) -> T:
        """Return what ``body`` does in a transaction of its own; begun anew where others were in the way."""
        for attempt in range(1, ATTEMPTS):
            try:
                return await super().transact(body)
            except Unavailable as refused:
                cause = refused.__cause__
                if not (isinstance(cause, DBAPIError) and self.is_transient(cause)):
                    raise
            most = _RETRY_BASE * 2**attempt
            await asyncio.sleep(random.uniform(most / 2, most))  # noqa: S311 - spreads load and guards nothing
        return await super().transact(body)

    async def look(
        self,
        question: Callable[[AsyncConnection], Coroutine[Any, Any, Sequence[T]]],
        revision: Callable[[T], int],
    ) -> Look[T]:
        """Return what ``question`` finds below the horizon: transactions with smaller numbers are over."""

        async def below(connection: AsyncConnection) -> Look[T]:
            end = await horizon(connection)
            found = await question(connection)
            settled = [row for row in found if revision(row) < end]
            return Look(settled, behind=len(settled) < len(found))

        return await self.read(below)
