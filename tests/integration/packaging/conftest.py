"""A world of stages for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.packaging.signing.keys import OriginKey, create_key
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.integration.packaging.making_world import World
from tests.support.databases import location as location
from tests.support.databases import migrated as migrated


@pytest_asyncio.fixture
async def world(location: Location, tmp_path: Path) -> AsyncIterator[World]:
    database = open_database(location)
    yield World(tmp_path, database)
    await database.close()


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> OriginKey:
    return create_key(tmp_path_factory.mktemp("origin") / "origin.asc", "Fleet <fleet@example.org>")
