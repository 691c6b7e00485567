from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.trust import setup
from tests.integration.cli import factory as factories
from tests.integration.cli.command import Command
from tests.integration.cli.factory import Factory
from tests.support.admin import Admin
from tests.support.fixtures import admin, folder, site, template
from tests.support.in_process import LocalSite

__all__ = ["admin", "folder", "site", "template"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home folder of whoever types the command, and the folder that they are in."""
    made = tmp_path / "home"
    made.mkdir()
    return made


@pytest.fixture
def command(home: Path) -> Command:
    """The command, typed where nothing says which server to call."""
    return Command(home)


@pytest.fixture
def fleetwright(site: LocalSite, command: Command) -> Command:
    """The command, typed by the first operator of the running server."""
    return command.calling(site)


@pytest.fixture
async def agents(site: LocalSite, admin: Admin) -> list[str]:
    """Three enrolled agents that have not come yet."""
    names = ["db-1", "web-1", "web-2"]
    _, token = await admin.token(max_uses=len(names), labels={"site": "north"})
    for name in names:
        await site.enroll(name, token)
    return names


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of certificates alone, for scripted servers."""
    folder = tmp_path_factory.mktemp("authority") / "data"
    setup.init(folder, "fleetwright.local", [], datetime.now(UTC))
    return folder


@pytest.fixture
async def factory(authority: Path) -> AsyncIterator[Factory]:
    """A factory that does what the test says."""
    async with factories.serving(authority) as running:
        yield running


@pytest.fixture
def packager(factory: Factory, authority: Path, command: Command) -> Command:
    """The command, typed by the first operator of the scripted factory."""
    return factories.calling(command, factory, authority)
