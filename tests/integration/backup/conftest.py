from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.storage.backup import taking
from tests.support.folders import copy_folder, make_folder

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that no server has used."""
    return make_folder(tmp_path_factory.mktemp("template") / "data")


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return copy_folder(template, tmp_path / "data")


@pytest.fixture(scope="session")
def good(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the template, not compressed."""
    target = tmp_path_factory.mktemp("good") / "good.tar"
    return taking.take(template, target, product="1.2.3", now=NOON).path


Content = dict[str, str]


@pytest.fixture
def content() -> Callable[[Path], Content]:
    """Return every file below a folder with its mode and digest, but the lock."""

    def of(folder: Path) -> Content:
        return {
            path.relative_to(folder).as_posix(): f"{path.stat().st_mode:o} {_digest(path)}"
            for path in sorted(folder.rglob("*"))
            if path.name != "server.lock"
        }

    return of


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
