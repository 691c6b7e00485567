"""Mach-O, of 32 and 64 bits, and universal files. Source: Apple's ``loader.h`` and ``fat.h``."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.packaging.sbom.executables.image import NO_DATA, Image, Segment, counted, unpack
from controlplane.packaging.sbom.trees import OpenFile

UNIVERSAL = b"\xca\xfe\xba\xbe"
ORDERS = {
    b"\xfe\xed\xfa\xce": (">", False),
    b"\xce\xfa\xed\xfe": ("<", False),
    b"\xfe\xed\xfa\xcf": (">", True),
    b"\xcf\xfa\xed\xfe": ("<", True),
}
"""Byte order, and whether of 64 bits, by the magic number."""

_MAX_ARCHITECTURES = 20
"""A Java class has the magic number of a universal file, and then its version, which is 45 or more."""

_SEGMENT, _SEGMENT_64 = 0x1, 0x19
_READ_WRITE = 3


def offsets(file: OpenFile) -> list[int]:
    """Return where the images of a universal file begin; none for a Java class."""
    (count,) = unpack(file, ">I", 4)
    if count > _MAX_ARCHITECTURES:
        return []
    return [unpack(file, ">IIIII", 8 + index * 20)[2] for index in range(count)]


def image(file: OpenFile, start: int) -> Image:
    """Return where the parts of the image at ``start`` lie; raise ``BadMetadata`` where it is damaged."""
    order, wide = ORDERS.get(file.read_at(start, 4), ("<", True))
    (count,) = unpack(file, order + "I", start + 16)
    at = start + (32 if wide else 28)
    segments: list[Segment] = []
    own = first = NO_DATA
    for _ in counted(file, "load commands", count):
        command, size = unpack(file, order + "II", at)
        if command in (_SEGMENT, _SEGMENT_64):
            segment, writable, sections = _segment(file, order, command == _SEGMENT_64, at, start)
            segments.append(segment)
            first = segment if writable and first is NO_DATA else first
            own = next((found for found in sections if found is not None), own)
        # A command of no size would be read for ever.
        at += max(size, 8)
    return Image(segments, first if own is NO_DATA else own)


def _segment(
    file: OpenFile, order: str, wide: bool, at: int, start: int
) -> tuple[Segment, bool, list[Segment]]:
    form, header = ("8x16xQQQQIIII", 72) if wide else ("8x16xIIIIIIII", 56)
    address, _, offset, size, most, initial, count, _ = unpack(file, order + form, at)
    segment = Segment(address, start + offset, size)
    writable = bool(address and size) and most == initial == _READ_WRITE
    return segment, writable, list(_build_sections(file, order, wide, (at + header, count), start))


def _build_sections(
    file: OpenFile, order: str, wide: bool, table: tuple[int, int], start: int
) -> Iterator[Segment]:
    form, size = ("32xQQI", 80) if wide else ("32xIII", 68)
    for index in counted(file, "sections", table[1]):
        at = table[0] + index * size
        if file.read_at(at, 16).rstrip(b"\0") == b"__go_buildinfo":
            address, length, offset = unpack(file, order + form, at)
            yield Segment(address, start + offset, length)
