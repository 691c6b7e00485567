"""Where each entry's content lies: local headers held against the directory, end to end, without gaps."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.window import Window
from controlplane.packaging.archives.zip.directory import (
    DESCRIPTOR,
    ENCRYPTED,
    EXTRA_64,
    LOCAL,
    Entry,
    extra_fields,
    wide,
)
from controlplane.packaging.archives.zip.end import FULL_32

HEADER = struct.Struct("<4xxxHHxxxxLLLHH")
HEADER_BYTES = 30
DESCRIPTOR_SIGN = b"PK\x07\x08"


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry and its packed bytes."""

    entry: Entry
    packed: Window


def placed(window: Window, entries: Sequence[Entry], end: int) -> Iterator[Placed]:
    """The entries in the order in which they lie, from the first byte to the directory at ``end``.

    Raises ``OVERLAPPING_ENTRIES``, ``HIDDEN_DATA``, ``CONFLICTING_HEADERS``, ``TRUNCATED``.
    """
    ordered = sorted(entries, key=lambda entry: entry.offset)
    at = 0
    for index, entry in enumerate(ordered):
        if entry.offset < at:
            message = "its bytes are those of another entry too, as in a bomb of overlapping entries"
            raise BadArtefact(Code.OVERLAPPING_ENTRIES, entry.name, message)
        if entry.offset > at:
            message = f"{entry.offset - at} bytes before it belong to no entry; pack the zip anew"
            raise BadArtefact(Code.HIDDEN_DATA, entry.name, message)
        following = ordered[index + 1].offset if index + 1 < len(ordered) else end
        packed, at = _content(window, entry, following)
        yield Placed(entry, packed)
    if at != end:
        message = f"{end - at} bytes before its directory belong to no entry"
        raise BadArtefact(Code.HIDDEN_DATA, window.name, message)


def _content(window: Window, entry: Entry, following: int) -> tuple[Window, int]:
    head = window.read(entry.offset, HEADER_BYTES, f"the local header of {entry.name}")
    if head[:4] != LOCAL:
        message = "has no local header where the directory says"
        raise BadArtefact(Code.CONFLICTING_HEADERS, entry.name, message)
    *said, name_bytes, extra_bytes = HEADER.unpack(head)
    names = window.read(entry.offset + HEADER_BYTES, name_bytes + extra_bytes, "a name")
    extras = dict(extra_fields(names[name_bytes:], window.name))
    _compare(entry, names[:name_bytes], said, extras.get(EXTRA_64))
    begin = entry.offset + HEADER_BYTES + name_bytes + extra_bytes
    end = begin + entry.packed
    if end > following:
        message = "its content reaches into the next entry or the directory"
        raise BadArtefact(Code.OVERLAPPING_ENTRIES, entry.name, message)
    packed = window.part(begin, entry.packed, entry.name)
    return packed, end + (_descriptor(window, entry, end, following - end) if entry.flags & DESCRIPTOR else 0)


def _compare(entry: Entry, raw_name: bytes, said: Sequence[int], extra_64: bytes | None) -> None:
    flags, method, crc, packed, size = said
    if flags & ENCRYPTED:
        raise BadArtefact(Code.ENCRYPTED, entry.name, "is encrypted by its local header")
    if raw_name != entry.raw_name or method != entry.method or (flags ^ entry.flags) & DESCRIPTOR:
        message = "its name, method or flags differ between its local header and the directory"
        raise BadArtefact(Code.CONFLICTING_HEADERS, entry.name, message)
    if extra_64 is not None and FULL_32 in (size, packed):
        size, packed = wide(extra_64, ((size, FULL_32), (packed, FULL_32)), entry.name)
    # Where the numbers follow the content, a local header may leave them out.
    may_be_absent = bool(flags & DESCRIPTOR)
    for local, central in ((crc, entry.crc), (packed, entry.packed), (size, entry.size)):
        if local != central and not (may_be_absent and local == 0):
            message = "its sizes or checksum differ between its local header and the directory"
            raise BadArtefact(Code.CONFLICTING_HEADERS, entry.name, message)


def _descriptor(window: Window, entry: Entry, at: int, room: int) -> int:
    """The bytes of the data descriptor: with a signature or without, its sizes of 4 or of 8 bytes."""
    for sign in (DESCRIPTOR_SIGN, b""):
        for wide_sizes in ("<LLL", "<LQQ"):
            if wide_sizes == "<LLL" and max(entry.packed, entry.size) > FULL_32:
                continue
            expected = sign + struct.pack(wide_sizes, entry.crc, entry.packed, entry.size)
            if len(expected) <= room and window.read(at, len(expected), "a descriptor") == expected:
                return len(expected)
    message = "no data descriptor follows its content, or one that differs from the directory"
    raise BadArtefact(Code.CONFLICTING_HEADERS, entry.name, message)
