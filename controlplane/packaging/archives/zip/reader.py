"""The members of a zip with their content, checked against size and checksum."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.limits import Budget
from controlplane.packaging.archives.members import Entries, Member, MemberKind
from controlplane.packaging.archives.streams import BlockInflater, Inflater, ZlibInflater, feed, one_stream
from controlplane.packaging.archives.window import Window
from controlplane.packaging.archives.zip.directory import Entry
from controlplane.packaging.archives.zip.end import found
from controlplane.packaging.archives.zip.layout import placed

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
OTHERS: Mapping[int, str] = {9: "deflate64", 93: "zstd", 95: "xz", 98: "PPMd", 99: "AES"}
LZMA_HEAD = 9
LZMA_SLACK = 16
"""Bytes at the end of a stream without an end mark that a decoder may not have asked for yet."""
LZMA_ENDS = 0x0002
"""The flag by which an LZMA member says that its stream has an end mark (APPNOTE 4.4.4)."""

STARTERS: Mapping[int, Callable[[], Inflater]] = {
    DEFLATED: lambda: ZlibInflater(-zlib.MAX_WBITS),
    BZIP2: lambda: BlockInflater(bz2.BZ2Decompressor()),
}


def zip_members(window: Window, entries: Sequence[Entry], budget: Budget) -> Entries:
    """The members in the order in which their content lies, their names as the directory has them.

    Raises what ``placed`` raises, and ``CHECKSUM_MISMATCH``, ``CORRUPT``, ``UNSUPPORTED_COMPRESSION``.
    """
    for place in placed(window, entries, found(window).offset):
        entry = place.entry
        content = _content(entry, place.packed, budget)
        if entry.kind is MemberKind.SYMLINK:
            yield Member(entry.name, entry.kind, 0, entry.mode, _target(entry, content, budget)), ()
            continue
        yield Member(entry.name, entry.kind, entry.size, entry.mode), content
        # A folder's content, and what the caller left, is checked as well.
        for _ in content:
            pass


def _target(entry: Entry, content: Iterator[bytes], budget: Budget) -> str:
    if entry.size > budget.limits.name_bytes:
        raise BadArtefact(Code.NAME_TOO_LONG, entry.name, f"is a link whose target has {entry.size} bytes")
    try:
        return b"".join(content).decode("utf-8")
    except UnicodeDecodeError:
        raise BadArtefact(Code.NAME_NOT_PORTABLE, entry.name, "is a link whose target is not UTF-8") from None


def _content(entry: Entry, packed: Window, budget: Budget) -> Iterator[bytes]:
    """The bytes of one member; never more than it declares, and not less."""
    crc = size = 0
    for piece in _unpacked(entry, packed, budget):
        crc, size = zlib.crc32(piece, crc), size + len(piece)
        if size > entry.size:
            break
        budget.inflate(len(piece), entry.name)
        yield piece
    if size != entry.size:
        word = "more" if size > entry.size else "less"
        message = f"unpacks to {word} than the {entry.size} bytes that it declares"
        raise BadArtefact(Code.CONFLICTING_HEADERS, entry.name, message)
    if crc != entry.crc:
        raise BadArtefact(Code.CHECKSUM_MISMATCH, entry.name, "its CRC is wrong; upload the artefact again")


def _unpacked(entry: Entry, packed: Window, budget: Budget) -> Iterator[bytes]:
    if entry.method == STORED:
        return packed.chunks()
    if entry.method == LZMA:
        return _lzma(entry, packed, budget)
    if entry.method not in STARTERS:
        method = OTHERS.get(entry.method, f"method {entry.method}")
        message = f"is compressed by {method}, which is not read here; pack with deflate"
        raise BadArtefact(Code.UNSUPPORTED_COMPRESSION, entry.name, message)
    return _whole(STARTERS[entry.method](), packed)


def _whole(inflater: Inflater, packed: Window) -> Iterator[bytes]:
    source = packed.chunks()
    yield from one_stream(inflater, b"", source, packed.name)
    if inflater.leftover or next(source, b""):
        raise BadArtefact(Code.HIDDEN_DATA, packed.name, "other bytes follow the end of its compressed data")


def _lzma(entry: Entry, packed: Window, budget: Budget) -> Iterator[bytes]:
    inflater = BlockInflater(_lzma_decompressor(packed, budget))
    body = packed.part(LZMA_HEAD, packed.size - LZMA_HEAD, packed.name)
    if entry.flags & LZMA_ENDS:
        yield from _whole(inflater, body)
        return
    source = body.chunks()
    left = entry.size
    data = b""
    while left > 0:
        data = next(source, b"") if inflater.hungry else b""
        if (inflater.hungry and not data) or inflater.finished:
            raise BadArtefact(Code.TRUNCATED, entry.name, "its compressed data ends too early")
        piece = feed(inflater, data, entry.name)[:left]
        left -= len(piece)
        yield piece
    if len(next(source, b"")) > LZMA_SLACK:
        raise BadArtefact(Code.HIDDEN_DATA, entry.name, "other bytes follow the end of its compressed data")


def _lzma_decompressor(packed: Window, budget: Budget) -> lzma.LZMADecompressor:
    """From the properties before the stream (APPNOTE 5.8.8): lc, lp, pb and the dictionary's size."""
    head = packed.read(0, LZMA_HEAD, "the properties of LZMA")
    code, dictionary = head[4], int.from_bytes(head[5:9], "little")
    lc, lp, pb = code % 9, code // 9 % 5, code // 45
    if head[2:4] != b"\x05\0" or pb > 4 or lc + lp > 4:
        raise BadArtefact(Code.CORRUPT, packed.name, "the properties of its LZMA stream are impossible")
    if dictionary > budget.limits.memory_bytes:
        message = f"needs a dictionary of {dictionary} bytes to decompress; pack with deflate"
        raise BadArtefact(Code.MEMORY_EXCEEDED, packed.name, message)
    size = max(dictionary, 4096)
    filters = [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": size}]
    return lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
