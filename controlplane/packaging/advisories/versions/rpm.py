"""Versions of RPM packages: ``[epoch:]version[-release]``, by rpm's own rpmvercmp.

A version is a row of numbers and words of ASCII letters; all else only separates. At each place "~" stands
below the end, then the end, "^", words, and numbers at the top. A missing epoch is 0; a missing release
stands below any, an empty one too.
"""

from __future__ import annotations

import re
from typing import Any

from controlplane.packaging.advisories.versions.text import checked, no_version

_KIND = "RPM"
_EPOCH = re.compile(r"([0-9]*):")
_TOKENS = re.compile(r"[0-9]+|[A-Za-z]+|[~^]")
_TILDE, _END, _CARET, _WORD, _NUMBER = range(5)


def parse(text: str) -> Any:
    """Return the sort key of a version. Raises ``VersionError``."""
    whole = checked(text, _KIND)
    epoch = _EPOCH.match(whole)
    rest = whole[epoch.end() :] if epoch else whole
    version, hyphen, release = rest.rpartition("-")
    if not hyphen:
        version = rest
    if not version:
        raise no_version(whole, _KIND, "has nothing between epoch and release")
    number = int(epoch[1] or "0") if epoch else 0
    return number, _ordered(version), (1, _ordered(release)) if hyphen else (0,)


def _ordered(text: str) -> tuple[object, ...]:
    return (*map(_ranked, _TOKENS.findall(text)), (_END,))


def _ranked(part: str) -> tuple[int, ...] | tuple[int, str]:
    if part == "~":
        return (_TILDE,)
    if part == "^":
        return (_CARET,)
    return (_NUMBER, int(part)) if part.isdigit() else (_WORD, part)
