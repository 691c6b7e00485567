from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.folders import make_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that no server has used."""
    return make_folder(tmp_path / "data")
