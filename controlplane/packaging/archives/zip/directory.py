"""The central directory of a zip: what it says of each entry, before any of it is believed."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.limits import MIB, Budget
from controlplane.packaging.archives.members import MemberKind
from controlplane.packaging.archives.window import Window
from controlplane.packaging.archives.zip.end import CENTRAL, FULL_16, FULL_32, Directory, found

LOCAL = b"PK\x03\x04"
RECORD = struct.Struct("<4xxBxxHHxxxxLLLHHHHxxLL")
RECORD_BYTES = 46
DIRECTORY_BYTES = 64 * MIB
"""Of a whole central directory: 100,000 entries with long names come to a quarter of it."""
ENCRYPTED = 0x0001 | 0x0040 | 0x2000
PATCHED = 0x0020
DESCRIPTOR = 0x0008
UTF_8 = 0x0800
UNIX = (3, 19)
"""Hosts (Unix, macOS) whose names are UTF-8 also without the flag, which Info-ZIP never sets there."""
EXTRA_64, EXTRA_UNICODE_PATH = 0x0001, 0x7075
FOLDERS = (0, stat.S_IFDIR, stat.S_IFREG, stat.S_IFMT(0xFFFF))
"""What writers mark folders with: Maven's old one sets every bit. All readers go by the name."""
KINDS = {0: MemberKind.FILE, stat.S_IFREG: MemberKind.FILE, stat.S_IFLNK: MemberKind.SYMLINK}


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the directory, its numbers already those of zip64 where it has them."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    """Of its local header."""
    kind: MemberKind
    mode: int


def directory(window: Window, budget: Budget) -> list[Entry]:
    """All entries, in the directory's order.

    Raises ``PREPENDED_DATA``, ``ENCRYPTED``, ``DEVICE_NODE``, ``MALFORMED``, ``CONFLICTING_HEADERS``,
    ``TOO_MANY_MEMBERS``, ``FILE_TOO_LARGE``, ``EMPTY`` and what the end's reader raises.
    """
    place = found(window)
    _check_place(window, place, budget)
    records = window.read(place.offset, place.size, "the central directory")
    entries = []
    at = 0
    for _ in range(place.entries):
        entry, at = _entry(records, at, window.name, budget)
        entries.append(entry)
    if at != len(records):
        message = "its central directory holds more than the entries counted"
        raise BadArtefact(Code.MALFORMED, window.name, message)
    return entries


def _check_place(window: Window, place: Directory, budget: Budget) -> None:
    if place.entries == 0:
        raise BadArtefact(Code.EMPTY, window.name, "is a zip without entries")
    if place.entries > budget.limits.members or place.size > DIRECTORY_BYTES:
        message = f"declares {place.entries} entries in a directory of {place.size} bytes; ship fewer files"
        raise BadArtefact(Code.TOO_MANY_MEMBERS, window.name, message)
    if place.offset + place.size > place.end:
        raise BadArtefact(Code.TRUNCATED, window.name, "its central directory would reach past the end")
    if place.offset + place.size < place.end or window.head(4) != LOCAL:
        message = "other bytes stand before the zip or its directory's end; ship the zip alone"
        raise BadArtefact(Code.PREPENDED_DATA, window.name, message)


def _entry(records: bytes, at: int, archive: str, budget: Budget) -> tuple[Entry, int]:
    if records[at : at + 4] != CENTRAL or at + RECORD_BYTES > len(records):
        raise BadArtefact(Code.MALFORMED, archive, f"its central directory has no entry at byte {at}")
    fields = RECORD.unpack_from(records, at)
    host, flags, method, crc, packed, size, *lengths, disk, attributes, offset = fields
    name_bytes, extra_bytes, comment_bytes = lengths
    name_at = at + RECORD_BYTES
    end = name_at + name_bytes + extra_bytes + comment_bytes
    if end > len(records):
        message = f"the entry at byte {at} of its directory is longer than that"
        raise BadArtefact(Code.MALFORMED, archive, message)
    raw_name = records[name_at : name_at + name_bytes]
    extras = dict(extra_fields(records[name_at + name_bytes : end - comment_bytes], archive))
    other_name = extras.get(EXTRA_UNICODE_PATH)
    in_utf_8 = bool(flags & UTF_8) or raw_name.isascii() or (host in UNIX and other_name is None)
    name = _name(raw_name, in_utf_8, other_name, archive)
    budget.member(name)
    _check_flags(name, flags)
    size, packed, offset, disk = wide(
        extras.get(EXTRA_64), ((size, FULL_32), (packed, FULL_32), (offset, FULL_32), (disk, FULL_16)), name
    )
    if disk:
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, name, "lies on another disk of the zip")
    kind = _kind(name, attributes >> 16, size, budget)
    mode = (attributes >> 16) & 0o777
    return Entry(name, raw_name, flags, method, crc, packed, size, offset, kind, mode), end


def _check_flags(name: str, flags: int) -> None:
    if flags & ENCRYPTED:
        raise BadArtefact(Code.ENCRYPTED, name, "is encrypted; pack it without a password")
    if flags & PATCHED:
        raise BadArtefact(Code.UNSUPPORTED_COMPRESSION, name, "is patched data, which is not read here")


def _kind(name: str, unix_mode: int, size: int, budget: Budget) -> MemberKind:
    file_type = stat.S_IFMT(unix_mode)
    if name.endswith("/"):
        if size or file_type not in FOLDERS:
            message = "is a folder by its name, and has content or a type"
            raise BadArtefact(Code.CONFLICTING_HEADERS, name, message)
        return MemberKind.FOLDER
    if file_type == stat.S_IFDIR:
        raise BadArtefact(Code.CONFLICTING_HEADERS, name, "is a folder by its type, and not by its name")
    if file_type not in KINDS:
        raise BadArtefact(Code.DEVICE_NODE, name, "is a device, pipe or socket; packages hold files alone")
    if size > budget.limits.file_bytes:
        message = f"declares {size} bytes, more than {budget.limits.file_bytes}"
        raise BadArtefact(Code.FILE_TOO_LARGE, name, message)
    return KINDS[file_type]


def _name(raw: bytes, in_utf_8: bool, unicode_path: bytes | None, archive: str) -> str:
    name = _decoded(raw, archive) if in_utf_8 else ""
    if unicode_path is not None:
        # Version 1, the CRC of the name that it stands for, the name: APPNOTE 4.6.9.
        if unicode_path[:1] != b"\1" or unicode_path[1:5] != struct.pack("<L", zlib.crc32(raw)):
            message = "an entry's Unicode name stands for another name"
            raise BadArtefact(Code.CONFLICTING_HEADERS, archive, message)
        other = _decoded(unicode_path[5:], archive)
        if name and name != other:
            message = f"is also named {printable(other)!r}: readers differ over which name holds"
            raise BadArtefact(Code.CONFLICTING_HEADERS, name, message)
        name = other
    if not name:
        shown = printable(raw.decode("cp437"))
        what = f"{shown!r} has no declared encoding" if raw else "is empty"
        message = f"the name of an entry {what}; pack with names that are marked as UTF-8"
        raise BadArtefact(Code.NAME_NOT_PORTABLE, archive, message)
    return name


def _decoded(raw: bytes, archive: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        shown = printable(raw.decode("utf-8", "backslashreplace"))
        raise BadArtefact(Code.NAME_NOT_PORTABLE, archive, f"the name {shown!r} is not UTF-8") from None


def extra_fields(extra: bytes, archive: str) -> Iterator[tuple[int, bytes]]:
    """The tagged fields of an entry.

    Raise ``MALFORMED`` for lengths that do not fit, or one of ours twice.
    """
    seen: set[int] = set()
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        if at + 4 + length > len(extra):
            message = "an extra field of an entry is longer than all of them"
            raise BadArtefact(Code.MALFORMED, archive, message)
        if tag in seen and tag in (EXTRA_64, EXTRA_UNICODE_PATH):
            raise BadArtefact(Code.CONFLICTING_HEADERS, archive, f"an entry has two extra fields {tag:#06x}")
        seen.add(tag)
        yield tag, extra[at + 4 : at + 4 + length]
        at += 4 + length
    # Tools that align content pad with zeros, fewer than the head of a field at times.
    if extra[at:].strip(b"\0"):
        message = "the extra fields of an entry do not end where they should"
        raise BadArtefact(Code.MALFORMED, archive, message)


def wide(extra: bytes | None, fields: tuple[tuple[int, int], ...], name: str) -> list[int]:
    """The fields, each replaced by zip64's where it is full, in the order of zip64 (APPNOTE 4.5.3)."""
    values = []
    at = 0
    for value, full in fields:
        if value != full:
            values.append(value)
            continue
        count = 4 if full == FULL_16 else 8
        piece = (extra or b"")[at : at + count]
        if len(piece) < count:
            raise BadArtefact(Code.MALFORMED, name, "points to a zip64 number that it does not have")
        values.append(int.from_bytes(piece, "little"))
        at += count
    return values
