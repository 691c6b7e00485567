from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.cli.command import Command
from tests.support.admin import Admin
from tests.support.folders import copy_folder, make_folder
from tests.support.in_process import LocalSite, serving


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder to copy: never served."""
    return make_folder(tmp_path_factory.mktemp("template") / "data")


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own."""
    return copy_folder(template, tmp_path / "data")


@pytest.fixture
async def site(folder: Path) -> AsyncIterator[LocalSite]:
    """The real server."""
    async with serving(folder) as running:
        yield running


@pytest.fixture
async def admin(site: LocalSite) -> Admin:
    return site.admin()


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
