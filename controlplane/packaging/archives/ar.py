"""ar, as debs use it: short names, no symbol table, nothing before, between or after the members.

The format is deb(5) and ar(5): a line of magic, then headers of 60 bytes, each with its content, padded to
even.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.limits import Budget
from controlplane.packaging.archives.window import Window

MAGIC = b"!<arch>\n"
HEADER = 60
END = b"`\n"
NAME = re.compile(rb"[A-Za-z0-9._+-]{1,16}")
SIZE = re.compile(rb"[0-9]{1,10}")


def ar_members(window: Window, budget: Budget) -> Iterator[tuple[str, Window]]:
    """The members by name, in order, each as a window into the archive.

    Raises ``NOT_WHAT_IT_SAYS`` without the magic, ``TRUNCATED``, ``MALFORMED``, ``NAME_NOT_PORTABLE``,
    ``DUPLICATE_ENTRY``, ``TOO_MANY_MEMBERS``.
    """
    if window.head(len(MAGIC)) != MAGIC:
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, window.name, "does not begin as an ar archive does")
    seen: set[str] = set()
    offset = len(MAGIC)
    while offset < window.size:
        name, size = _header(window.read(offset, HEADER, "the header of a member"), window.name)
        budget.member(name)
        if name in seen:
            raise BadArtefact(Code.DUPLICATE_ENTRY, name, "the archive holds two members of this name")
        seen.add(name)
        yield name, window.part(offset + HEADER, size, name)
        offset = _next(window, offset + HEADER + size, name)


def _header(header: bytes, archive: str) -> tuple[str, int]:
    if header[58:] != END:
        raise BadArtefact(Code.MALFORMED, archive, "the header of a member does not end as ar's do")
    # One "/" after the name is how GNU's ar writes it, and deb(5) permits it.
    raw = header[:16].rstrip(b" ").removesuffix(b"/")
    if not NAME.fullmatch(raw):
        shown = printable(raw.decode("ascii", "replace"))
        message = f"the name {shown!r} of a member is none that debs have"
        raise BadArtefact(Code.NAME_NOT_PORTABLE, archive, message)
    name = raw.decode("ascii")
    size = header[48:58].rstrip(b" ")
    if not SIZE.fullmatch(size):
        raise BadArtefact(Code.MALFORMED, name, "its size is not a decimal number")
    return name, int(size)


def _next(window: Window, end: int, name: str) -> int:
    if end % 2 == 0:
        return end
    if window.read(end, 1, "the padding of a member") != b"\n":
        raise BadArtefact(Code.MALFORMED, name, "is not padded with a line feed")
    return end + 1
