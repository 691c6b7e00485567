"""Licences: SPDX expressions where they are some, else the package's own words."""

from __future__ import annotations

from functools import lru_cache

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from controlplane.packaging.sbom.text import shown

MAX_LICENCE = 500
"""Characters of a licence that is kept; whole licence texts, which some packages put there, are cut."""


def own_words(value: str) -> str:
    """Return a licence as one printable line of bounded length."""
    return shown(" ".join(value.split()), MAX_LICENCE)


@lru_cache(maxsize=4_096)
def spdx_expression(text: str) -> str:
    """Return the canonical SPDX expression; empty where ``text`` is none."""
    if not text or len(text) > MAX_LICENCE:
        return ""
    try:
        return str(canonicalize_license_expression(text))
    except (InvalidLicenseExpression, ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
