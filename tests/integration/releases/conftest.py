"""SQLite alone: what differs between databases is tried with the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from controlplane.storage.migrate import upgrade
from tests.contracts.releases_world import World, world


@pytest_asyncio.fixture
async def made(tmp_path: Path) -> AsyncIterator[World]:
    """A repository that a ceremony made, and nothing released."""
    upgrade(tmp_path / "fleetwright.db")
    async with world(tmp_path / "fleetwright.db", tmp_path) as opened:
        yield opened
