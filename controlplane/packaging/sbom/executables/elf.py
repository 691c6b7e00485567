"""ELF, of 32 and 64 bits and either byte order. Source: the System V ABI, chapters 4 and 5."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.packaging.sbom.executables.image import NO_DATA, Image, Segment, counted, unpack
from controlplane.packaging.sbom.trees import OpenFile

MAGIC = b"\x7fELF"
_LOADED = 1
_WRITABLE, _EXECUTABLE = 2, 1


def image(file: OpenFile) -> Image:
    """Return where the parts of an ELF file lie; raise ``BadMetadata`` where it is damaged."""
    kind, byte_order = unpack(file, "2B", 4)
    order = ">" if byte_order == 2 else "<"
    wide = kind == 2
    fields = unpack(file, order + ("QQIHHHHHH" if wide else "IIIHHHHHH"), 32 if wide else 28)
    programs, sections, _, _, program_size, program_count, section_size, section_count, names = fields
    loaded = list(_loaded(file, order, wide, (programs, program_size, program_count)))
    own = _build_section(file, order, wide, (sections, section_size, section_count, names))
    first = next((segment for segment, flags in loaded if flags & 3 == _WRITABLE), NO_DATA)
    return Image([segment for segment, _ in loaded], own or first)


def _loaded(
    file: OpenFile, order: str, wide: bool, table: tuple[int, int, int]
) -> Iterator[tuple[Segment, int]]:
    at, size, count = table
    for index in counted(file, "segments", count):
        fields = unpack(file, order + ("IIQQQQ" if wide else "IIIIIII"), at + index * size)
        if fields[0] != _LOADED:
            continue
        if wide:
            yield Segment(address=fields[3], offset=fields[2], size=fields[5]), fields[1]
        else:
            yield Segment(address=fields[2], offset=fields[1], size=fields[4]), fields[6]


def _build_section(
    file: OpenFile, order: str, wide: bool, table: tuple[int, int, int, int]
) -> Segment | None:
    at, size, count, names = table
    form = order + ("IIQQQQ" if wide else "IIIIII")
    if names >= count:
        return None
    strings = unpack(file, form, at + names * size)[4]
    for index in counted(file, "sections", count):
        name, _, _, address, offset, length = unpack(file, form, at + index * size)
        if file.read_at(strings + name, 14) == b".go.buildinfo\0":
            return Segment(address, offset, length)
    return None
