"""PE, of 32 and 64 bits. Source: Microsoft's "PE Format"."""

from __future__ import annotations

from controlplane.packaging.sbom.executables.image import NO_DATA, Image, Segment, counted, unpack
from controlplane.packaging.sbom.trees import OpenFile

MAGIC = b"MZ"
_WIDE = 0x20B
_SECTION_SIZE = 40
# Initialised data that may be read and written; the bits that are masked are an alignment.
_DATA, _ALIGNMENT = 0xC0000040, 0x00600000


def is_pe(file: OpenFile) -> bool:
    """Return whether a file that begins with "MZ" is more than a program for DOS."""
    at = file.read_at(0x3C, 4)
    return len(at) == 4 and file.read_at(int.from_bytes(at, "little"), 4) == b"PE\0\0"


def image(file: OpenFile) -> Image:
    """Return where the parts of a PE file lie; raise ``BadMetadata`` where it is damaged."""
    (at,) = unpack(file, "<I", 0x3C)
    _, count, _, _, _, optional_size, _ = unpack(file, "<HHIIIHH", at + 4)
    (kind,) = unpack(file, "<H", at + 24)
    (base,) = unpack(file, "<Q", at + 48) if kind == _WIDE else unpack(file, "<I", at + 52)
    table = at + 24 + optional_size
    segments, data = [], NO_DATA
    for index in counted(file, "sections", count):
        fields = unpack(file, "<8xIIII12xI", table + index * _SECTION_SIZE)
        _, address, size, offset, flags = fields
        segments.append(Segment(base + address, offset, size))
        if data is NO_DATA and address and size and flags & ~_ALIGNMENT == _DATA:
            data = segments[-1]
    return Image(segments, data)
