"""Versions of Debian packages: ``[epoch:]upstream[-revision]`` (deb-version(7)).

A text and a number take turns. Within a text "~" stands below the end, letters below everything else, and the
rest goes by its code. What is missing counts as an empty text and as 0, so "1.0" equals "1.0-0".

dpkg compares what it warns of; here a version that does not begin with a digit is compared as it does, but
characters that no version may have are refused.
"""

from __future__ import annotations

import re
from typing import Any

from controlplane.packaging.advisories.versions.text import checked, no_version

_KIND = "Debian"
_MAX_EPOCH = 2**31 - 1
"""An epoch is an int in dpkg, which refuses larger ones."""

_UPSTREAM = re.compile(r"[0-9A-Za-z.+~:-]+")
_REVISION = re.compile(r"[0-9A-Za-z.+~]+")
_PARTS = re.compile(r"([^0-9]*)([0-9]*)")
_TILDE, _END, _OTHER = -1, 0, 256


def parse(text: str) -> Any:
    """Return the sort key of a version. Raises ``VersionError``."""
    version = checked(text, _KIND)
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    elif not (epoch.isascii() and epoch.isdigit()) or int(epoch) > _MAX_EPOCH:
        raise no_version(version, _KIND, f"has an epoch that is no number up to {_MAX_EPOCH}")
    upstream, hyphen, revision = rest.rpartition("-")
    if not hyphen:
        upstream = rest
        revision = ""
    elif not _REVISION.fullmatch(revision):
        raise no_version(
            version, _KIND, "has a revision that is empty or has other characters than A-Za-z0-9.+~"
        )
    if not _UPSTREAM.fullmatch(upstream):
        raise no_version(
            version, _KIND, "has an upstream part that is empty or has other characters than A-Za-z0-9.+-:~"
        )
    return int(epoch), _ordered(upstream), _ordered(revision)


def _ordered(text: str) -> tuple[object, ...]:
    parts: list[object] = []
    for letters, digits in _PARTS.findall(text) if text else [("", "")]:
        if letters or digits or not parts:
            parts += [(*map(_rank, letters), _END), int(digits or "0")]
    # The end has a rank too: "1.0~" stands below "1.0", and that below "1.0.".
    return (*parts, (_END,))


def _rank(character: str) -> int:
    if character == "~":
        return _TILDE
    return ord(character) if character.isalpha() else ord(character) + _OTHER
