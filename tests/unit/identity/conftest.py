from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.identity.world import World, making_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making_world(tmp_path) as made:
        yield made
