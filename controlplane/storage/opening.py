"""The database of a location, whichever backend that is of."""

from __future__ import annotations

from controlplane.observability.metrics import Metrics
from controlplane.storage.database import Database
from controlplane.storage.location import Location, Postgres
from controlplane.storage.postgresql.database import PostgresDatabase
from controlplane.storage.sqlite.database import SqliteDatabase


def open_database(location: Location, metrics: Metrics | None = None) -> Database:
    """Return the database; connections are made when they are first needed."""
    if isinstance(location, Postgres):
        return PostgresDatabase(location, metrics)
    return SqliteDatabase(location, metrics)
