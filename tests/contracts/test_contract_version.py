"""The version of the program is said in two places, because a package is built without its code."""

from __future__ import annotations

import tomllib
from pathlib import Path

from controlplane import VERSION


def test_the_package_has_the_version_that_the_program_says() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
