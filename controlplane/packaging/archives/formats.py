"""Which format a file has, by its bytes. More than one at once is refused: somebody would read the other one.

cab and cpio are recognised and refused for now. Their seam is ``Format`` and ``OTHERS`` here, a reader that
yields ``members.Entries`` (an entry of ``readers.READERS``), and a type in ``kinds``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from controlplane.packaging.archives import ar
from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.limits import EXHAUSTED, Budget
from controlplane.packaging.archives.streams import MAGIC, STARTERS, Compression, Pull, decompressed
from controlplane.packaging.archives.tar.headers import BLOCK, is_header
from controlplane.packaging.archives.window import Window
from controlplane.packaging.archives.zip.end import seems_zip

HEAD = 4096
"""Bytes that recognition looks at: the farthest signature, that of a PE, must lie within."""


class Format(Enum):
    """What is read here, compression aside."""

    ZIP = "zip"
    TAR = "tar"
    AR = "ar"
    ELF = "ELF"
    PE = "PE"
    MACH_O = "Mach-O"


Found = Format | Compression | str
"""What a signature says; a text where it is a format that is not read."""
EXECUTABLES = (Format.ELF, Format.PE, Format.MACH_O)
ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00PK\x03\x04")
MACH_O_HEADS = (b"\xfe\xed\xfa\xce", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xcf\xfa\xed\xfe")
FAT_HEAD = b"\xca\xfe\xba\xbe"
FAT_HEAD_64 = b"\xca\xfe\xba\xbf"
FAT_SLICES = 30
"""Java's classes begin as universal binaries do, with a version of 45 or more for the count of slices."""
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
OTHERS: Mapping[bytes, str] = {
    b"MSCF\0\0\0\0": "cab",
    b"070701": "cpio",
    b"070702": "cpio",
    b"070707": "cpio",
    b"\xed\xab\xee\xdb": "rpm",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "msi",
    b"xar!": "pkg of macOS",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"%PDF-": "pdf",
    b"dex\n": "dex",
    b"\0asm": "WebAssembly",
    b"hsqs": "squashfs",
}
OTHER_ARCHIVES = ("cab", "cpio", "rpm", "msi", "7z", "rar")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file is, and how that is compressed."""

    format: Format
    compression: Compression = Compression.NONE


def shape_of(window: Window, budget: Budget) -> Shape:
    """The one format of a file.

    Raises ``POLYGLOT``, ``PREPENDED_DATA`` for a zip behind other bytes, ``UNSUPPORTED_FORMAT``,
    ``UNSUPPORTED_COMPRESSION``, ``UNKNOWN_FORMAT``, and what decompression raises.
    """
    head = window.head(HEAD)
    found: list[Found] = [*_plain(head), *_compressed(head), *_unread(head)]
    zip_behind = _zip_behind(window, found)
    if len(found) + zip_behind > 1:
        names = " and ".join([*(_name(one) for one in found), *(["zip"] if zip_behind else [])])
        raise BadArtefact(Code.POLYGLOT, window.name, f"is {names} at once; ship one of them")
    if zip_behind:
        message = "is a zip with other bytes before it; ship the zip alone"
        raise BadArtefact(Code.PREPENDED_DATA, window.name, message)
    if not found:
        message = "is of no known format; send a wheel, sdist, npm tarball, jar, deb, zip, tar or executable"
        raise BadArtefact(Code.UNKNOWN_FORMAT, window.name, message)
    return _read(found[0], window, budget)


def _name(found: Found) -> str:
    return found if isinstance(found, str) else found.value


def _plain(head: bytes) -> Iterator[Format]:
    if head.startswith(ZIP_HEADS):
        yield Format.ZIP
    if is_header(head):
        yield Format.TAR
    if head.startswith(ar.MAGIC):
        yield Format.AR
    if head.startswith(b"\x7fELF"):
        yield Format.ELF
    if is_pe(head):
        yield Format.PE
    if is_mach_o(head):
        yield Format.MACH_O


def is_pe(head: bytes) -> bool:
    """Whether the program of DOS at the beginning points to one of Windows."""
    place = int.from_bytes(head[60:64], "little")
    return head.startswith(b"MZ") and head[place : place + 4] == b"PE\0\0"


def is_mach_o(head: bytes) -> bool:
    """Whether the file begins as a Mach-O does, thin or universal."""
    slices = int.from_bytes(head[4:8], "big")
    universal = head.startswith((FAT_HEAD, FAT_HEAD_64)) and 0 < slices <= FAT_SLICES
    return universal or (head.startswith(MACH_O_HEADS) and len(head) >= 28)


def _compressed(head: bytes) -> Iterator[Compression]:
    for compression, magic in MAGIC.items():
        if not head.startswith(magic):
            continue
        if compression is not Compression.BZIP2 or BZIP2.match(head):
            yield compression


def _unread(head: bytes) -> Iterator[str]:
    yield from (name for magic, name in OTHERS.items() if head.startswith(magic))
    if head.startswith(FAT_HEAD) and not is_mach_o(head):
        yield "class of Java"
    if head.startswith(b"MZ") and not is_pe(head):
        yield "program of DOS"


def _zip_behind(window: Window, found: list[Found]) -> bool:
    if Format.ZIP in found:
        return False
    # What is appended to an executable is loaded by nobody and read as a zip by many. In other formats the
    # bytes at the end may be a zip that is content, so that only one that reaches the very end counts.
    exact = bool(found) and found[0] not in EXECUTABLES
    return seems_zip(window, exact=exact)


def _read(found: Found, window: Window, budget: Budget) -> Shape:
    if isinstance(found, Format):
        return Shape(found)
    if isinstance(found, str):
        message = f"is a {found}, which is not packaged here yet"
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, window.name, message)
    inner = Pull(decompressed(window, found, budget), window.name)
    head = inner.upto(BLOCK)
    if not is_header(head):
        message = f"is {found.value}-compressed, and what it holds is no tar; upload that uncompressed"
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, window.name, message)
    return Shape(Format.TAR, found)


def nested_shape(window: Window, budget: Budget) -> Shape | str | None:
    """What archive a file within a package is: its shape, the name of one that is not read, or None.

    Single compressed files, as manual pages are, are no archives.
    """
    head = window.head(HEAD)
    if head.startswith(ZIP_HEADS[0]):
        return Shape(Format.ZIP)
    plain = next((one for one in _plain(head) if one in (Format.TAR, Format.AR)), None)
    if plain is not None:
        return Shape(plain)
    compression = next(_compressed(head), None)
    if compression is not None and compression in STARTERS:
        return _compressed_tar(window, compression, budget)
    if compression is Compression.ZSTD:
        return Compression.ZSTD.value
    others = (name for name in _unread(head) if name in OTHER_ARCHIVES)
    return next(others, None)


def _compressed_tar(window: Window, compression: Compression, budget: Budget) -> Shape | None:
    try:
        head = Pull(decompressed(window, compression, budget), window.name).upto(BLOCK)
    except BadArtefact as error:
        if error.code in EXHAUSTED:
            raise
        return None
    return Shape(Format.TAR, compression) if is_header(head) else None
