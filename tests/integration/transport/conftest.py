from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.transport.doors import Doors, opened


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with opened() as running:
        yield running
