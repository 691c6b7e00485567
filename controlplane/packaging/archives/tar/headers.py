"""The 512 bytes that stand before each member."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code, printable

BLOCK = 512
ZEROS = bytes(BLOCK)
MAGICS = (b"ustar\x0000", b"ustar  \x00")
"""POSIX's, and GNU's older one. Version 7's tar has none, and nothing to tell it from other bytes by."""
OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
BASE_256 = 0x80
TIMES = re.compile(rb"\0(?:[0-7]{11}[ \0]){2}")


@dataclass(frozen=True, slots=True)
class Header:
    """One header, its fields checked each by itself."""

    name: bytes
    mode: int
    size: int
    type: bytes
    target: bytes


def is_header(block: bytes) -> bool:
    """Whether these bytes begin a tar: the magic and the right checksum."""
    return len(block) >= BLOCK and block[257:265] in MAGICS and _checksum_holds(block[:BLOCK])


def parsed(block: bytes, archive: str) -> Header:
    """A header's fields.

    ``MALFORMED``, ``CHECKSUM_MISMATCH`` or ``NUL_IN_NAME`` where they are not as they must.
    """
    if block[257:265] not in MAGICS:
        raise BadArtefact(Code.MALFORMED, archive, "a member has no ustar header")
    if not _checksum_holds(block):
        raise BadArtefact(Code.CHECKSUM_MISMATCH, archive, "the checksum of a member's header is wrong")
    name = _text(block[:100], archive)
    prefix = _text(_prefix(block), archive)
    return Header(
        name=prefix + b"/" + name if prefix else name,
        mode=number(block[100:108], "mode", archive) & 0o7777,
        size=number(block[124:136], "size", archive),
        type=block[156:157],
        target=_text(block[157:257], archive),
    )


def _prefix(block: bytes) -> bytes:
    """The field with a long name's beginning: GNU's own header has none, and npm's may have times behind."""
    if block[257:265] != MAGICS[0]:
        return b""
    return block[345:475] if TIMES.fullmatch(block[475:500]) else block[345:500]


def _checksum_holds(block: bytes) -> bool:
    field = OCTAL.fullmatch(block[148:156])
    digits = field.group(1) if field else b""
    # The field itself counts as eight spaces.
    return bool(digits) and int(digits, 8) == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def number(field: bytes, what: str, archive: str) -> int:
    """A number in octal, or in GNU's base 256; an empty field is 0."""
    if field[0] == BASE_256:
        return int.from_bytes(field[1:], "big")
    digits = OCTAL.fullmatch(field)
    if digits is None:
        shown = printable(field.decode("latin-1"))
        message = f"the {what} of a member is {shown!r}, not an octal number"
        raise BadArtefact(Code.MALFORMED, archive, message)
    return int(digits.group(1) or b"0", 8)


def _text(field: bytes, archive: str) -> bytes:
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        shown = printable(field.decode("utf-8", "replace"))
        raise BadArtefact(Code.NUL_IN_NAME, archive, f"the name {shown!r} of a member goes on behind a NUL")
    return text
