"""A repository, and the client's program that has begun with its first root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuf_conformance.simulated import Client, Simulated, served


@pytest.fixture
def repo() -> Simulated:
    return Simulated()


@pytest.fixture
def client(repo: Simulated, tmp_path: Path) -> Iterator[Client]:
    with served(repo, tmp_path) as opened:
        yield opened
