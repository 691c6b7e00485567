"""Archives byte by byte, so that tests can make each field lie."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass


@dataclass
class Packed:
    """An entry of a zip; what is None is made from the content, what is set is written as it stands."""

    name: bytes = b"a.txt"
    data: bytes = b"hello"
    method: int = 8
    host: int = 3
    flags: int = 0
    unix_mode: int = 0o100644
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    local_name: bytes | None = None
    local_size: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    descriptor: bytes = b""
    offset: int | None = None

    def payload(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if self.method != 8:
            return self.data
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(self.data) + deflate.flush()

    def numbers(self) -> tuple[int, int, int]:
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        return crc, len(self.payload()), len(self.data) if self.size is None else self.size

    def local(self) -> bytes:
        crc, packed, size = self.numbers()
        if self.flags & 8:
            crc = packed = size = 0
        size = size if self.local_size is None else self.local_size
        name = self.name if self.local_name is None else self.local_name
        head = struct.pack(
            "<4sHHHHHLLLHH", b"PK\3\4", 20, self.flags, self.method, 0, 33, crc, packed, size, len(name),
            len(self.local_extra),
        )  # fmt: skip
        return head + name + self.local_extra + self.payload() + self.descriptor

    def central(self, offset: int) -> bytes:
        crc, packed, size = self.numbers()
        head = struct.pack(
            "<4sHHHHHHLLLHHHHHLL", b"PK\1\2", self.host << 8 | 20, 20, self.flags, self.method, 0, 33, crc,
            packed, size, len(self.name), len(self.extra), 0, 0, 0, self.unix_mode << 16,
            offset if self.offset is None else self.offset,
        )  # fmt: skip
        return head + self.name + self.extra


def zipped(*entries: Packed, comment: bytes = b"", gap: bytes = b"", count: int | None = None) -> bytes:
    """A zip of these entries, with ``gap`` between the last of them and the directory."""
    body = b""
    directory = b""
    for entry in entries:
        directory += entry.central(len(body))
        body += entry.local()
    body += gap
    number = len(entries) if count is None else count
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, number, number, len(directory), len(body), len(comment))
    return body + directory + end + comment


def as_zip64(data: bytes, **changes: int) -> bytes:
    """A plain zip with the records of zip64 at its end, some numbers in them changed."""
    body, end = data[:-22], data[-22:]
    entries, size, offset = struct.unpack_from("<HLL", end, 10)
    numbers = {"entries": entries, "size": size, "offset": offset, **changes}
    record = struct.pack(
        "<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, numbers["entries"], numbers["entries"], numbers["size"],
        numbers["offset"],
    )  # fmt: skip
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body), 1)
    old = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return body + record + locator + old


@dataclass
class Block:
    """A member of a tar."""

    name: bytes = b"top/a.txt"
    data: bytes = b""
    type: bytes = b"0"
    target: bytes = b""
    mode: bytes = b"0000644\0"
    size: int | None = None
    magic: bytes = b"ustar\x0000"
    checksum: bytes | None = None
    prefix: bytes = b""

    def written(self) -> bytes:
        size = len(self.data) if self.size is None else self.size
        head = self.name.ljust(100, b"\0") + self.mode + b"0000000\0" * 2
        head += b"%011o\0" % size + b"00000000000\0"
        rest = self.type + self.target.ljust(100, b"\0") + self.magic + bytes(32 + 32) + b"0000000\0" * 2
        rest += self.prefix.ljust(155, b"\0") + bytes(12)
        total = sum(head) + 8 * 32 + sum(rest)
        checksum = b"%06o\0 " % total if self.checksum is None else self.checksum
        return head + checksum + rest + self.data + bytes(-len(self.data) % 512)


END_OF_TAR = bytes(1024)


def tarred(*blocks: Block, end: bytes = END_OF_TAR) -> bytes:
    """A tar of these members."""
    return b"".join(block.written() for block in blocks) + end


def pax(**records: str) -> Block:
    """A header of pax for the member after it."""
    return Block(b"pax", b"".join(record(key, value.encode()) for key, value in records.items()), b"x")


def record(key: str, value: bytes) -> bytes:
    """One record of pax with its length, which counts its own digits."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def ar(*members: tuple[str, bytes]) -> bytes:
    """An ar archive."""
    out = io.BytesIO()
    out.write(b"!<arch>\n")
    for name, data in members:
        out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        out.write(data + b"\n" * (len(data) % 2))
    return out.getvalue()
