"""What the document for integrators quotes stands in the files that it quotes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "integrators.md").read_text(encoding="utf-8")

_QUOTED = re.compile(r"^<!-- from (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```(\w+)$", re.MULTILINE)
_WHEEL = re.compile(r"dist/fleetwright-(\S+?)-py3")


def stands_in(block: str, text: str) -> bool:
    """Tell whether whole lines of ``text``, one after the other, are ``block``."""
    return f"\n{block}" in f"\n{text}"


@pytest.mark.parametrize(("source", "block"), _QUOTED.findall(TEXT), ids=lambda part: part.splitlines()[0])
def test_a_quoted_block_stands_in_its_file(source: str, block: str) -> None:
    assert stands_in(block, (ROOT / source).read_text(encoding="utf-8"))


def test_every_block_of_code_is_quoted() -> None:
    code = [language for language in _FENCE.findall(TEXT) if language != "sh"]
    assert len(_QUOTED.findall(TEXT)) == len(code) > 0


def test_a_block_that_differs_from_its_file_is_found() -> None:
    assert stands_in("  b\n  c\n", "a\n  b\n  c\n")
    assert not stands_in("  b\n  d\n", "a\n  b\n  c\n")
    assert not stands_in("b\n  c\n", "a\n  b\n  c\n")


def test_the_wheel_that_is_installed_is_of_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version is not None
    assert _WHEEL.findall(TEXT) == [version[1]]
