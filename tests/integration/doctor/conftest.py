from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.integration.doctor.asking import Doctor
from tests.support.folders import copy_folder, make_folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder to copy: never served."""
    return make_folder(tmp_path_factory.mktemp("template") / "data")


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own."""
    return copy_folder(template, tmp_path / "data")


@pytest.fixture(autouse=True)
def _log_apart() -> Iterator[None]:
    """Keep the log of a server in this process out of what the command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    yield
    structlog.reset_defaults()


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """The command, in a world without settings and contexts, and with any ports."""
    return Doctor(monkeypatch, tmp_path)
