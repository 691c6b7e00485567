"""Fixtures of a real server on a folder of the test's own; a ``conftest`` takes them by importing them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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
    """The first operator."""
    return site.admin()
