"""Semantic versions (semver.org 2.0.0), as npm reads them and OSV's SEMVER ranges write them.

Build metadata has no part in the order. Beyond the specification, because published data does it: a leading
"v" or "=", leading zeros, missing or additional numbers ("1.2", "1.2.3.4"; what is missing counts as 0), a
pre-release without its hyphen ("1.2.3beta"), as npm's loose mode has it. ``strict`` allows of these only the
"v" and missing numbers where nothing follows, which is what Go's modules do.
"""

from __future__ import annotations

import re
from typing import Any

from controlplane.packaging.advisories.versions.text import checked, no_version

_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_LOOSE = re.compile(
    r"(?P<numbers>[0-9]+(?:\.[0-9]+)*)"
    rf"(?:-(?P<pre>{_IDENTIFIERS})|(?P<joined>[A-Za-z]{_IDENTIFIERS}|[A-Za-z]))?"
    rf"(?:\+{_IDENTIFIERS})?"
)
_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_STRICT = re.compile(
    rf"(?P<numbers>{_NUMBER}(?:\.{_NUMBER}){{0,2}})"
    rf"(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    rf"(?P<joined>)(?:\+{_IDENTIFIERS})?"
)
_RELEASE = (1,)


def parse(text: str, *, strict: bool = False, kind: str = "semver") -> Any:
    """Return the sort key of a version. Raises ``VersionError``."""
    given = text.strip()
    version = checked(given.removeprefix("v") if strict else given.lstrip("v= \t"), kind)
    found = (_STRICT if strict else _LOOSE).fullmatch(version)
    if found is None:
        raise no_version(version, kind, "is not of the form MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]")
    numbers = [int(number) for number in found["numbers"].split(".")]
    pre = found["pre"] or found["joined"] or None
    if strict and len(numbers) < 3 and version != found["numbers"]:
        raise no_version(version, kind, "has a pre-release or build without all of MAJOR.MINOR.PATCH")
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), _RELEASE if pre is None else (0, *map(_identifier, pre.split(".")))


def _identifier(text: str) -> tuple[int, int | str]:
    # Numeric identifiers stand below the others (semver.org, 11.4.3).
    return (0, int(text)) if text.isdigit() else (1, text)
