"""What holds for the text of a version in every ecosystem."""

from __future__ import annotations

MAX_LENGTH = 256
"""Characters of a version. npm and Maven refuse longer ones too, and rules that nest stay within bounds."""


class VersionError(ValueError):
    """A text is no version of its ecosystem; the message says why."""


def checked(text: str, kind: str) -> str:
    """Return the text without white space around it.

    Raises ``VersionError`` for one that is empty, too long, or has white space or control characters in it.
    """
    stripped = text.strip()
    if not stripped:
        raise VersionError(f"{kind}: a version is empty")
    if len(stripped) > MAX_LENGTH:
        raise VersionError(f"{kind}: a version has {len(stripped)} characters; {MAX_LENGTH} are allowed")
    if not stripped.isprintable() or any(character.isspace() for character in stripped):
        raise no_version(stripped, kind, "has white space or control characters in it")
    return stripped


def no_version(text: str, kind: str, why: str) -> VersionError:
    """Return the error for a text that is no version."""
    return VersionError(f"{kind}: {text[:80]!r} is no version: it {why}")
