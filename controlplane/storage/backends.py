"""The databases that there are: SQLite, embedded, and PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.postgresql import psycopg as postgresql
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

SQLITE = "sqlite"
POSTGRESQL = "postgresql"


@dataclass(frozen=True)
class Backend:
    """How statements are written for a database, and what its driver raises."""

    dialect: Dialect
    errors: type[Exception]


_psycopg: Any = postgresql.PGDialect_psycopg  # without types of its own

BACKENDS: Mapping[str, Backend] = {
    SQLITE: Backend(sqlite.dialect(paramstyle="named"), sqlite3.Error),
    POSTGRESQL: Backend(_psycopg(paramstyle="pyformat"), psycopg.Error),
}
"""By SQLAlchemy's names of their dialects."""


def insert_into(connection: AsyncConnection, table: Table) -> Any:
    """Return an insert that has ``on_conflict_do_nothing`` and ``on_conflict_do_update``.

    Both databases know them; SQLAlchemy has a class for each.
    """
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Table) -> Any:
    """Return the same for a dialect."""
    return postgresql_insert(table) if dialect == POSTGRESQL else sqlite_insert(table)
