"""Decompression, piece by piece and within the budget; the same classes serve zip's members.

zstd is not in Python's standard library before 3.14. Its seam is ``STARTERS``: an entry for
``Compression.ZSTD`` that makes an ``Inflater``.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Protocol

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.limits import Budget
from controlplane.packaging.archives.window import CHUNK, Window


class Compression(Enum):
    """How a whole file is compressed; the value is what its name ends with."""

    NONE = ""
    GZIP = "gz"
    XZ = "xz"
    BZIP2 = "bz2"
    ZSTD = "zst"
    LZMA = "lzma"


class Inflater(Protocol):
    """One compressed stream on its way."""

    def feed(self, data: bytes) -> bytes:
        """Give input; at most ``CHUNK`` bytes of output come back."""

    @property
    def finished(self) -> bool:
        """Whether the stream has ended, and its checksum was right."""

    @property
    def hungry(self) -> bool:
        """Whether it can go on only with more input."""

    @property
    def leftover(self) -> bytes:
        """Input that follows the end of the stream."""


class ZlibInflater:
    """Deflate by zlib; ``wbits`` says what stands around it: 31 gzip, -15 nothing."""

    def __init__(self, wbits: int) -> None:
        self._state = zlib.decompressobj(wbits)
        self._tail = b""
        self._full = False

    def feed(self, data: bytes) -> bytes:
        """Give input; at most ``CHUNK`` bytes of output come back."""
        piece = self._state.decompress(self._tail + data, CHUNK)
        self._tail = self._state.unconsumed_tail
        # A full piece may have more behind it inside zlib, even without input.
        self._full = len(piece) == CHUNK
        return piece

    @property
    def finished(self) -> bool:
        """Whether the stream has ended, and its checksum was right."""
        return self._state.eof

    @property
    def hungry(self) -> bool:
        """Whether it can go on only with more input."""
        return not self._tail and not self._full

    @property
    def leftover(self) -> bytes:
        """Input that follows the end of the stream."""
        return self._state.unused_data


class BlockInflater:
    """xz, raw LZMA and bzip2, whose decompressors in Python have one shape."""

    def __init__(self, state: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._state = state

    def feed(self, data: bytes) -> bytes:
        """Give input; at most ``CHUNK`` bytes of output come back."""
        return self._state.decompress(data, CHUNK)

    @property
    def finished(self) -> bool:
        """Whether the stream has ended, and its checksum was right."""
        return self._state.eof

    @property
    def hungry(self) -> bool:
        """Whether it can go on only with more input."""
        return self._state.needs_input

    @property
    def leftover(self) -> bytes:
        """Input that follows the end of the stream."""
        return self._state.unused_data


STARTERS: Mapping[Compression, Callable[[int], Inflater]] = {
    Compression.GZIP: lambda memory: ZlibInflater(31),
    Compression.XZ: lambda memory: BlockInflater(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)),
    Compression.BZIP2: lambda memory: BlockInflater(bz2.BZ2Decompressor()),
}
"""By compression: what makes an inflater that allocates at most so many bytes."""

MAGIC: Mapping[Compression, bytes] = {
    Compression.GZIP: b"\x1f\x8b\x08",
    Compression.XZ: b"\xfd7zXZ\0",
    Compression.BZIP2: b"BZh",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
    Compression.LZMA: b"\x5d\0\0",
}


def decompressed(window: Window, compression: Compression, budget: Budget) -> Iterator[bytes]:
    """The content of a compressed file, never an empty piece; concatenated streams of one format are one.

    Raises ``NOT_WHAT_IT_SAYS``, ``TRUNCATED``, ``CORRUPT``, ``TRAILING_DATA``, ``MEMORY_EXCEEDED``,
    ``UNSUPPORTED_COMPRESSION``, and what the budget raises.
    """
    if compression is Compression.NONE:
        yield from window.chunks()
        return
    if compression not in STARTERS:
        known = ", ".join(sorted(one.value for one in STARTERS))
        message = f"is compressed as {compression.value}, which is not read here; recompress it as {known}"
        raise BadArtefact(Code.UNSUPPORTED_COMPRESSION, window.name, message)
    if not window.head(len(MAGIC[compression])).startswith(MAGIC[compression]):
        message = f"should be compressed as {compression.value} and does not begin so"
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, window.name, message)
    for piece in _streams(window, compression, budget):
        budget.inflate(len(piece), window.name)
        yield piece


def _streams(window: Window, compression: Compression, budget: Budget) -> Iterator[bytes]:
    source = window.chunks()
    rest = b""
    while True:
        budget.member(window.name)
        inflater = STARTERS[compression](budget.limits.memory_bytes)
        yield from one_stream(inflater, rest, source, window.name)
        rest = inflater.leftover or next(source, b"")
        if not rest:
            return
        if len(rest) < len(MAGIC[compression]):
            rest += next(source, b"")
        if not rest.startswith(MAGIC[compression]):
            message = f"other bytes follow the end of the {compression.value} stream; remove them"
            raise BadArtefact(Code.TRAILING_DATA, window.name, message)


def one_stream(inflater: Inflater, first: bytes, source: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The content of one stream, fed ``first`` and then from ``source`` until it says that it has ended."""
    data = first
    while True:
        piece = feed(inflater, data, name)
        if piece:
            yield piece
        if inflater.finished:
            return
        data = next(source, b"") if inflater.hungry else b""
        if inflater.hungry and not data:
            message = "the compressed data ends too early; upload it again, whole"
            raise BadArtefact(Code.TRUNCATED, name, message)


def feed(inflater: Inflater, data: bytes, name: str) -> bytes:
    """One step of decompression, with the library's errors told as ours."""
    try:
        return inflater.feed(data)
    except MemoryError:
        raise BadArtefact(Code.MEMORY_EXCEEDED, name, "needs too much memory to decompress") from None
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        if "emory usage limit" in str(error):
            message = "needs too much memory to decompress; compress it with a smaller dictionary"
            raise BadArtefact(Code.MEMORY_EXCEEDED, name, message) from None
        message = f"the compressed data is damaged ({printable(str(error))})"
        raise BadArtefact(Code.CORRUPT, name, message) from None


class Pull:
    """Pieces of any length, taken in the lengths that a reader wants."""

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0
        self.name = name

    def some(self, count: int) -> bytes:
        """At most ``count`` bytes, at least one; empty at the end."""
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        piece = self._piece[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def upto(self, count: int) -> bytes:
        """``count`` bytes, few enough to hold; less where there are no more."""
        pieces = []
        while count and (piece := self.some(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def exactly(self, count: int, what: str) -> bytes:
        """``count`` bytes, few enough to hold.

        ``TRUNCATED``, naming ``what`` was wanted, where there are less.
        """
        found = self.upto(count)
        if len(found) < count:
            raise BadArtefact(Code.TRUNCATED, self.name, f"ends within {what}; upload it again, whole")
        return found
