"""Texts that others wrote, made fit for documents, URLs and terminals."""

from __future__ import annotations

from controlplane.packaging.sbom.errors import BadMetadata

MAX_TEXT = 1_024
"""Characters of a name, version or licence; the longest real ones have about 200."""


def decode(member: str, data: bytes) -> str:
    """Return ``data`` as UTF-8, or as Latin-1 where it is older than that; NUL is refused."""
    if b"\0" in data:
        raise BadMetadata(member, "it holds NUL bytes, so it is not text; rebuild the package")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def is_plain(text: str) -> bool:
    """Return whether ``text`` has only characters that can be printed and encoded."""
    return text.isprintable()


def clean(member: str, field: str, value: object, limit: int = MAX_TEXT) -> str:
    """Return ``value`` without the white space around it.

    Raises:
        BadMetadata: it is no text, is too long, or holds characters that cannot be printed (control
            characters, line breaks, halves of surrogate pairs), with which a name could pass for another one.
    """
    if not isinstance(value, str):
        raise BadMetadata(member, f"{field} must be text, not {type(value).__name__}; correct it")
    text = value.strip()
    if len(text) > limit:
        raise BadMetadata(member, f"{field} has {len(text)} characters, more than {limit}; shorten it")
    if not is_plain(text):
        raise BadMetadata(
            member, f"{field} {text[:80]!r} holds characters that cannot be printed; remove them"
        )
    return text


def required(member: str, field: str, value: object) -> str:
    """Return ``value`` as ``clean`` does; raise ``BadMetadata`` where it is absent or empty."""
    text = clean(member, field, "" if value is None else value)
    if not text:
        raise BadMetadata(member, f"{field} is missing; every package states it")
    return text


def shown(value: object, limit: int = 120) -> str:
    """Return ``value`` for a message: printable and short."""
    text = "".join(character if character.isprintable() else "?" for character in str(value))
    return text if len(text) <= limit else f"{text[:limit]}…"


def documented(text: str) -> str:
    """Return ``text`` with what UTF-8 cannot hold, halves of surrogate pairs, written out."""
    return text.encode("utf-8", "backslashreplace").decode()
