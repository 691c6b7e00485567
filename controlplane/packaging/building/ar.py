"""The ar format as dpkg writes it (deb(5)): short names, sizes in decimal, members at even offsets.

Written headers carry no owner, and one time for all. Read are only the headers, by which members are found;
their number, names and sizes are checked before anything is believed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from controlplane.packaging.building.errors import BuildFailed

MAGIC: Final = b"!<arch>\n"
HEADER: Final = 60
MAX_MEMBERS: Final = 16
"""A .deb has three, and a few for signatures."""
MAX_SIZE: Final = 10**10 - 1
"""Bytes of a member: ten digits."""
CHUNK: Final = 2**16


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive: its content lies at ``offset`` and has ``size`` bytes."""

    name: str
    offset: int
    size: int


def header(name: str, size: int, epoch: int) -> bytes:
    """Return the header of a member; raises ``BuildFailed`` for what does not fit into it."""
    if not 0 < len(name.encode()) <= 15 or not name.isascii():
        raise BuildFailed("MEMBER_NAME", name, "a name in an ar archive has 1 to 15 characters of ASCII")
    if size > MAX_SIZE:
        raise BuildFailed("TOO_LARGE", name, f"has {size} bytes; a member holds at most {MAX_SIZE}")
    return f"{name:<16}{epoch:<12}{0:<6}{0:<6}{100644:<8}{size:<10}`\n".encode()


@contextmanager
def member(output: BinaryIO, name: str, epoch: int) -> Iterator[BinaryIO]:
    """Write a member at the end of ``output``, which can seek; its size is known only when it is written."""
    start = output.tell()
    output.write(header(name, 0, epoch))
    yield output
    end = output.tell()
    output.seek(start)
    output.write(header(name, end - start - HEADER, epoch))
    output.seek(end)
    if end % 2:
        output.write(b"\n")


def copy_member(source: BinaryIO, found: Member, output: BinaryIO) -> None:
    """Write the content of a member to ``output``; raises ``BuildFailed`` where it ends early."""
    source.seek(found.offset)
    left = found.size
    while left:
        chunk = source.read(min(left, CHUNK))
        if not chunk:
            raise BuildFailed("TRUNCATED", found.name, "ends before the size that its header declares")
        output.write(chunk)
        left -= len(chunk)


def read_content(source: BinaryIO, found: Member, most: int) -> bytes:
    """Return the content of a member of at most ``most`` bytes."""
    if found.size > most:
        raise BuildFailed("TOO_LARGE", found.name, f"has {found.size} bytes; at most {most} are read")
    source.seek(found.offset)
    content = source.read(found.size)
    if len(content) < found.size:
        raise BuildFailed("TRUNCATED", found.name, "ends before the size that its header declares")
    return content


def members(source: BinaryIO) -> list[Member]:
    """Return the members of an archive in their order; raises ``BuildFailed`` for what is damaged or none."""
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    if source.read(len(MAGIC)) != MAGIC:
        raise BuildFailed("NOT_AN_ARCHIVE", "ar", "the file does not begin as an ar archive does")
    found: list[Member] = []
    place = len(MAGIC)
    while place < end:
        if len(found) == MAX_MEMBERS:
            raise BuildFailed("TOO_MANY_MEMBERS", "ar", f"the archive has more than {MAX_MEMBERS} members")
        source.seek(place)
        one = _parsed(source.read(HEADER), place)
        if one.name in {other.name for other in found}:
            raise BuildFailed(
                "DUPLICATE_MEMBER", one.name, "occurs twice, and readers differ in which they take"
            )
        place = one.offset + one.size + one.size % 2
        if place > end:
            raise BuildFailed("TRUNCATED", one.name, "ends before the size that its header declares")
        found.append(one)
    return found


def _parsed(text: bytes, place: int) -> Member:
    if len(text) < HEADER or text[58:] != b"`\n":
        raise BuildFailed("BAD_HEADER", "ar", f"no header of a member stands at byte {place}")
    name, size = text[:16].rstrip(b" ").removesuffix(b"/"), text[48:58].rstrip(b" ")
    if not name or not name.isascii() or b"/" in name or any(byte <= 32 or byte == 127 for byte in name):
        raise BuildFailed("MEMBER_NAME", "ar", f"the member at byte {place} has a name that a .deb has not")
    if not size.isdigit():
        raise BuildFailed("BAD_HEADER", name.decode(), "its size is no number")
    return Member(name.decode(), place + HEADER, int(size))
