"""Order of versions, by each ecosystem's own rules.

``compare`` is the door; ``key`` gives what sorts alike, for who compares one version with many. Both take
OSV's name of an ecosystem, with a release or without one ("Debian:12", "Debian").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from controlplane.packaging.advisories.versions import debian, go, maven, pypi, rpm, semver
from controlplane.packaging.advisories.versions.text import VersionError

__all__ = ["UnknownEcosystemError", "VersionError", "certain", "compare", "is_known", "key", "spelling"]

_REMEMBERED = 131_072
"""Versions whose key is kept: a scan asks for the same ones again and again."""

_RPM = (
    "RPM",
    "AlmaLinux",
    "Rocky Linux",
    "Red Hat",
    "SUSE",
    "openSUSE",
    "openEuler",
    "Mageia",
    "Azure Linux",
    "Fedora",
    "Amazon Linux",
    "Oracle Linux",
    "Photon OS",
)
_DEBIAN = ("Debian", "Ubuntu")

_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "PyPI": pypi.parse,
    "npm": semver.parse,
    "Go": go.parse,
    "Maven": maven.parse,
    **dict.fromkeys(_DEBIAN, debian.parse),
    **dict.fromkeys(_RPM, rpm.parse),
}


class UnknownEcosystemError(ValueError):
    """No rules of comparison are known for an ecosystem."""


def is_known(ecosystem: str) -> bool:
    """Return whether versions of an ecosystem can be compared."""
    return _base(ecosystem) in _PARSERS


def compare(ecosystem: str, a: str, b: str) -> int:
    """Return -1, 0 or 1 as version ``a`` is older than ``b``, equal, or newer.

    Raises ``VersionError`` for a text that is no version there, and ``UnknownEcosystemError``.
    """
    left, right = key(ecosystem, a), key(ecosystem, b)
    if left == right:
        return 0
    return -1 if left < right else 1


def key(ecosystem: str, text: str) -> Any:
    """Return a value that sorts as the version does among others of its ecosystem.

    Raises as ``compare``.
    """
    return _key(_base(ecosystem), text)


def keys(ecosystem: str) -> Callable[[str], Any]:
    """Return ``key`` for one ecosystem, for many texts. It raises as ``compare``."""
    return partial(_key, _base(ecosystem))


@lru_cache(_REMEMBERED)
def _key(base: str, text: str) -> Any:
    parser = _PARSERS.get(base)
    if parser is None:
        known = ", ".join(sorted(_PARSERS))
        raise UnknownEcosystemError(f"{base!r}: no rules of comparison for this ecosystem; known are {known}")
    return parser(text)


def certain(ecosystem: str, text: str) -> bool:
    """Return whether a version that could be parsed has a place that its ecosystem's rules still define.

    False for a legacy version of PyPI, whose place is by a rule that was withdrawn (``pypi``).
    """
    return _base(ecosystem) != "PyPI" or not pypi.is_legacy(key(ecosystem, text))


def spelling(ecosystem: str, text: str) -> str:
    """Return the one spelling of a version for looking it up in a list of versions.

    What cannot be parsed keeps its own spelling.
    """
    base = _base(ecosystem)
    if base == "PyPI":
        return pypi.spelling(text)
    if base in ("npm", "Go"):
        return text.strip().removeprefix("v")
    return text.strip()


def _base(ecosystem: str) -> str:
    return ecosystem.partition(":")[0]
