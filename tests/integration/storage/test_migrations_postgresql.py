"""Migrations on a real PostgreSQL: rows stay, and the schema becomes the one that the rooms declare."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import controlplane.bootstrap  # noqa: F401 - through it every room declares its tables
from controlplane.storage.location import Postgres
from controlplane.storage.migrate import head, revisions, upgrade
from controlplane.storage.schema import metadata
from devtools.postgres import PostgresServer
from tests.support.databases import migrated  # noqa: F401 - the server

pytestmark = pytest.mark.slow

_numbers = count(1)
_VALUES: dict[str, object] = {
    "boolean": True,
    "double precision": 1.0,
    "bytea": b"\x00\xff",
    "json": '{"a": 1}',
}

Connection = psycopg.Connection[dict[str, object]]


@pytest.fixture
def url(migrated: PostgresServer) -> Iterator[str]:  # noqa: F811 - pytest asks by name
    name = f"migrations_{next(_numbers)}"
    yield migrated.create_database(name)
    migrated.drop_database(name)


def connect(url: str) -> Connection:
    return psycopg.connect(url, row_factory=dict_row)


def tables(connection: Connection) -> dict[str, str]:
    """Return the kind of each table: "r" an ordinary one, "p" one of partitions; partitions are left out."""
    found = connection.execute(
        "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version'"
    )
    return {str(row["relname"]): str(row["relkind"]) for row in found}


def fill(url: str) -> None:
    """Insert a row of telling values into every table that has none."""
    with connect(url) as connection:
        # References are not looked at: each table has a row of its own.
        connection.execute("SET session_replication_role = replica")
        for table, kind in tables(connection).items():
            name = sql.Identifier(table)
            if connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(name)).fetchone():
                continue
            if kind == "p":
                part = sql.SQL("CREATE TABLE first_day PARTITION OF {} FOR VALUES FROM (0) TO (86400000000)")
                connection.execute(part.format(name))
            columns = connection.execute(
                "SELECT column_name, data_type, character_maximum_length AS most "
                "FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s",
                (table,),
            ).fetchall()
            values = {str(column["column_name"]): _value(column) for column in columns}
            connection.execute(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    name,
                    sql.SQL(", ").join(map(sql.Identifier, values)),
                    sql.SQL(", ").join([sql.Placeholder()] * len(values)),
                ),
                list(values.values()),
            )


def _value(column: dict[str, object]) -> object:
    kind, most = str(column["data_type"]), column["most"]
    if kind in ("character varying", "text"):
        return f"text of {column['column_name']}"[: most if isinstance(most, int) else None]
    return _VALUES.get(kind, 1)


def content(url: str) -> dict[str, list[dict[str, object]]]:
    with connect(url) as connection:
        return {
            table: connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
            for table in tables(connection)
        }


@pytest.mark.parametrize("before", revisions()[:-1])
def test_what_was_there_before_is_there_in_the_schema_of_today(url: str, before: str) -> None:
    assert upgrade(Postgres(url), before) == (None, before)
    fill(url)
    old = content(url)
    assert all(old.values())
    assert upgrade(Postgres(url)) == (before, head())
    new = content(url)
    for table, rows in old.items():
        assert [{name: row[name] for name in rows[0]} for row in new[table]] == rows, table


def test_the_migrations_make_the_schema_that_the_rooms_declare(url: str) -> None:
    upgrade(Postgres(url))
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    # SQLite, whose schema the rooms declare too, numbers points in the order of commits and needs no index.
    assert [repr(one) for one in differences if "ix_telemetry_points_revision" not in repr(one)] == []
