"""Versions of Python packages: PEP 440 by the library ``packaging``, with a fallback for older ones.

A version that PEP 440 does not know ("2004d", "0.1-bulbasaur") stands below every one that it does, and among
its like by the rule that setuptools had before PEP 440: numbers and words take turns, "rc", "pre" and
"preview" are "c", "dev" is below all, trailing zeros are nothing. That rule was withdrawn, so ``is_legacy``
tells: what depends on such a place is not certain.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from packaging.utils import canonicalize_version
from packaging.version import InvalidVersion, Version

from controlplane.packaging.advisories.versions.text import VersionError, checked

_KIND = "PyPI"
_LEGACY, _KNOWN = 0, 1
_PARTS = re.compile(r"[0-9]+|[a-z]+|\.|-|[^0-9a-z.-]+")
_SAME = {"pre": "c", "preview": "c", "rc": "c", "-": "final-", "dev": "@"}
_FINAL, _POST = "*final", "*final-"
_ZERO = "00000000"


def parse(text: str) -> Any:
    """Return the sort key of a version. Raises ``VersionError``."""
    version = checked(text, _KIND)
    try:
        return _KNOWN, Version(version)
    except InvalidVersion:
        return _LEGACY, _legacy(version)


def is_legacy(key: Any) -> bool:
    """Return whether a sort key is that of a version which PEP 440 does not know."""
    return bool(key[0] == _LEGACY)


@lru_cache(65_536)
def spelling(text: str) -> str:
    """Return the canonical spelling of a version ("1.0.0" and "v1" are "1"), or its own where it is none."""
    try:
        return canonicalize_version(Version(checked(text, _KIND)))
    except (InvalidVersion, VersionError):
        return text.strip()


def _legacy(text: str) -> tuple[str, ...]:
    parts: list[str] = []
    for found in _PARTS.findall(text.lower()):
        part = _SAME.get(found, found)
        if part == ".":
            continue
        _append(parts, part.zfill(len(_ZERO)) if part[0].isdigit() else f"*{part}")
    _append(parts, _FINAL)
    return tuple(parts)


def _append(parts: list[str], part: str) -> None:
    if part.startswith("*"):
        # A word below "final" is a pre-release: what only says "after the release" before it is nothing.
        while part < _FINAL and parts and parts[-1] == _POST:
            parts.pop()
        while parts and parts[-1] == _ZERO:
            parts.pop()
    parts.append(part)
