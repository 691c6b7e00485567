"""A real server that has released a package through its own factory, made once and copied for each attack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.attacks.attacked_world import Attacked, Released, attacked, made
from tests.support.folders import copy_folder


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """A data folder with a released package, and the offline keys of its repository: never served."""
    return asyncio.run(made(tmp_path_factory.mktemp("released")))


@pytest.fixture
async def attack(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Attacked]:
    """The server, served, and the agent's program enrolled with it and running."""
    folder = copy_folder(released.folder, tmp_path / "data")
    async with attacked(folder, released, tmp_path, monkeypatch) as opened:
        yield opened
