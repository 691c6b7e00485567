"""Fixtures of fresh databases, for a ``conftest``: SQLite, and PostgreSQL in the suite's slow half."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from controlplane.storage.location import Location, Postgres
from controlplane.storage.migrate import upgrade
from devtools.postgres import PostgresServer

_numbers = itertools.count(1)
_TEMPLATE = "migrated"


@cache
def _migrated() -> bytes:
    """Return an empty SQLite database of the program's schema; it is made once for all tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        upgrade(path)
        return path.read_bytes()


@pytest.fixture(scope="session")
def migrated() -> Iterator[PostgresServer]:
    """A PostgreSQL server with an empty database of the program's schema, as a template for others.

    It does not wait for its disk: what survives a power cut is tried elsewhere, with one that does.
    """
    with PostgresServer({"fsync": "off", "full_page_writes": "off"}) as server:
        upgrade(Postgres(server.create_database(_TEMPLATE)))
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    """A fresh database of the program's schema."""
    if request.param == "sqlite":
        path = tmp_path / "fleetwright.db"
        path.write_bytes(_migrated())
        yield path
        return
    server: PostgresServer = request.getfixturevalue("migrated")
    name = f"store_{next(_numbers)}"
    yield Postgres(server.create_database(name, _TEMPLATE))
    server.drop_database(name)
