"""The end of a zip: where its central directory is, in the old records and in those of zip64."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.window import Window

END = b"PK\x05\x06"
END_64 = b"PK\x06\x06"
LOCATOR_64 = b"PK\x06\x07"
CENTRAL = b"PK\x01\x02"
END_BYTES, END_64_BYTES, LOCATOR_BYTES = 22, 56, 20
COMMENT_BYTES = 0xFFFF
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
"""What a field of 16 or 32 bits holds when zip64's holds the number."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies and what it is said to hold."""

    entries: int
    size: int
    offset: int
    end: int
    """Where the record behind it begins."""


def seems_zip(window: Window, *, exact: bool) -> bool:
    """Whether readers of zip, which look from the end, find a directory here.

    ``exact`` asks for one that reaches the end of the file; otherwise bytes may follow, as lenient readers
    allow.
    """
    tail = window.tail(END_BYTES + COMMENT_BYTES)
    at = tail.rfind(END)
    while at >= 0:
        if at + END_BYTES <= len(tail) and _plausible(window, tail, at, exact):
            return True
        at = tail.rfind(END, 0, at)
    return False


def _plausible(window: Window, tail: bytes, at: int, exact: bool) -> bool:
    size, _, comment = struct.unpack_from("<LLH", tail, at + 12)
    if exact and at + END_BYTES + comment != len(tail):
        return False
    begin = window.size - len(tail) + at - size
    if size == FULL_32:
        return at >= LOCATOR_BYTES and tail[at - LOCATOR_BYTES : at].startswith(LOCATOR_64)
    empty = size == 0 and tail[at + 4 : at + 12] == bytes(8)
    return empty or (0 <= begin <= window.size - 4 and window.read(begin, 4, "a directory") == CENTRAL)


def found(window: Window) -> Directory:
    """The one central directory.

    Raise ``TRUNCATED``, ``TRAILING_DATA``, ``AMBIGUOUS_DIRECTORY`` and the like.
    """
    tail = window.tail(END_BYTES + COMMENT_BYTES)
    at = _end(tail, window.name)
    place = window.size - len(tail) + at
    disk, first_disk, here, entries, size, offset = struct.unpack_from("<HHHHLL", tail, at + 4)
    old = Directory(entries, size, offset, place)
    if at >= LOCATOR_BYTES and tail[at - LOCATOR_BYTES : at].startswith(LOCATOR_64):
        return _found_64(window, place - LOCATOR_BYTES, old)
    if FULL_16 in (disk, first_disk) or FULL_32 in (size, offset):
        raise BadArtefact(Code.MALFORMED, window.name, "points to a zip64 directory that it does not have")
    if disk or first_disk or here != entries:
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, window.name, "is one disk of a zip that spans several")
    return old


def _end(tail: bytes, name: str) -> int:
    at = tail.rfind(END)
    if at < 0 or at + END_BYTES > len(tail):
        raise BadArtefact(Code.TRUNCATED, name, "has no end of central directory; upload it again, whole")
    whole = []
    while at >= 0:
        if at + END_BYTES + struct.unpack_from("<H", tail, at + 20)[0] == len(tail):
            whole.append(at)
        at = tail.rfind(END, 0, at)
    if not whole:
        message = "other bytes follow the end of the zip, or it is cut short"
        raise BadArtefact(Code.TRAILING_DATA, name, message)
    # Readers look from the end for the signature: one in the comment is another end of the zip to some of
    # them.
    if len(whole) > 1 or tail.rfind(END) != whole[0]:
        message = "has several ends of a central directory; pack it anew"
        raise BadArtefact(Code.AMBIGUOUS_DIRECTORY, name, message)
    return whole[0]


def _found_64(window: Window, locator: int, old: Directory) -> Directory:
    pointer = window.read(locator, LOCATOR_BYTES, "zip64's locator")
    record_disk, place, disks = struct.unpack("<LQL", pointer[4:])
    record = window.read(place, END_64_BYTES, "zip64's end of central directory")
    size_of_record, disk, first_disk, here, entries, size, offset = struct.unpack("<Q4xLLQQQQ", record[4:])
    if record[:4] != END_64 or place + 12 + size_of_record != locator:
        raise BadArtefact(Code.MALFORMED, window.name, "has no zip64 record where its locator points to")
    if record_disk or disk or first_disk or disks > 1 or here != entries:
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, window.name, "is one disk of a zip that spans several")
    pairs = ((old.entries, entries, FULL_16), (old.size, size, FULL_32), (old.offset, offset, FULL_32))
    if any(before not in (now, full) for before, now, full in pairs):
        raise BadArtefact(Code.CONFLICTING_HEADERS, window.name, "its zip64 record and its old one disagree")
    return Directory(entries, size, offset, place)
