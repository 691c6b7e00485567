"""Fixtures of a real PostgreSQL; a ``conftest`` takes them by importing them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from devtools.postgres import PostgresServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server of this worker's own, started by the first test that asks for it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)
