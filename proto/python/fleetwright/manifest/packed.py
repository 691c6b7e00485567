"""Finding the manifest in a package file: the first entry of our archive, a member of a .deb."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO, Final

from fleetwright.manifest.fields import ManifestError
from fleetwright.manifest.reading import MAX_BYTES, parse
from fleetwright.manifest.shapes import Manifest

ENTRY: Final = "manifest.json"
"""Of an archive, before everything else."""
DEB_MEMBER: Final = "_fleetwright"
"""Of a .deb, after its data; dpkg passes over members whose names begin with "_" (deb(5))."""

_BLOCK: Final = 512
_CHUNK: Final = 65_536
_AR: Final = b"!<arch>\n"
_GZIP: Final = b"\x1f\x8b"
_MAX_MEMBERS: Final = 16
"""Of a .deb: three, the manifest, and signatures."""


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a package file, which is an archive of ours or a .deb with a manifest.

    Reads no more than the manifest itself. Raises ``ManifestError`` for what is neither, and ``OSError``.
    """
    with path.open("rb") as package:
        magic = package.read(len(_AR))
        package.seek(0)
        if magic == _AR:
            return parse(_of_deb(package))
        if magic.startswith(_GZIP):
            return parse(_of_archive(package))
    raise ManifestError("package", "is neither a gzipped tar nor a .deb")


def _of_archive(package: BinaryIO) -> bytes:
    header, rest = _inflated(package, _BLOCK)
    if (
        len(header) < _BLOCK
        or header[:100].rstrip(b"\0") != ENTRY.encode()
        or header[156:157] not in (b"0", b"\0")
    ):
        raise ManifestError("package", f"does not begin with {ENTRY}")
    size = _number(header[124:136].rstrip(b"\0 "), 8)
    if size > MAX_BYTES:
        raise ManifestError("manifest", f"has {size} bytes; at most {MAX_BYTES} are read")
    text, _ = _inflated(package, size, rest)
    if len(text) < size:
        raise ManifestError("package", "ends within its manifest")
    return text


_State = tuple["zlib._Decompress", bytes]


def _inflated(package: BinaryIO, size: int, state: _State | None = None) -> tuple[bytes, _State]:
    """Return the next ``size`` bytes of a gzip stream, fewer at its end, and where it stands."""
    stream, waiting = state or (zlib.decompressobj(wbits=31), b"")
    found = bytearray()
    try:
        while len(found) < size and not stream.eof:
            waiting = waiting or package.read(_CHUNK)
            if not waiting:
                break
            found += stream.decompress(waiting, size - len(found))
            waiting = stream.unconsumed_tail
    except zlib.error as error:
        raise ManifestError("package", f"is damaged: {error}") from error
    return bytes(found), (stream, waiting)


def _of_deb(package: BinaryIO) -> bytes:
    package.seek(len(_AR))
    for _ in range(_MAX_MEMBERS):
        header = package.read(60)
        if len(header) < 60 or header[58:] != b"`\n":
            break
        name, size = header[:16].rstrip(b" ").removesuffix(b"/"), _number(header[48:58].rstrip(b" "), 10)
        if name == DEB_MEMBER.encode():
            text = package.read(min(size, MAX_BYTES + 1))
            if len(text) < min(size, MAX_BYTES + 1):
                raise ManifestError("package", "ends within its manifest")
            return text
        package.seek(size + size % 2, 1)
    raise ManifestError("package", f"is a .deb without a member {DEB_MEMBER}")


def _number(text: bytes, base: int) -> int:
    # Only digits: int() would also take signs, spaces and underscores.
    if not text or len(text) > 12 or not set(text) <= set(b"0123456789"[:base]):
        raise ManifestError("package", "has a header with a size that is no number")
    return int(text, base)
