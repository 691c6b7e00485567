"""What all formats of executables come down to."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.trees import OpenFile

MAX_TABLE = 4_096
"""Sections, segments or load commands of one executable; large programs have about 100."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is loaded to memory."""

    address: int
    offset: int
    size: int
    """Bytes in the file."""


@dataclass(frozen=True, slots=True)
class Image:
    """An executable for one architecture."""

    segments: Sequence[Segment]
    data: Segment
    """Where build information is: its own section, or the first data that may be written; may be empty."""

    def read(self, file: OpenFile, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes at an address of the loaded program; none where nothing is there."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                start = address - segment.address
                return file.read_at(segment.offset + start, min(size, segment.size - start))
        return b""


NO_DATA = Segment(0, 0, 0)


def unpack(file: OpenFile, form: str, offset: int) -> tuple[int, ...]:
    """Return the numbers at ``offset``; raise ``BadMetadata`` behind the end of the file."""
    size = struct.calcsize(form)
    data = file.read_at(offset, size)
    if len(data) < size:
        raise BadMetadata(file.path, f"it ends within the header at offset {offset}; it is truncated")
    return struct.unpack(form, data)


def counted(file: OpenFile, what: str, count: int) -> range:
    """Return the indices of a table; raise ``BadMetadata`` where it states too many entries."""
    if count > MAX_TABLE:
        raise BadMetadata(file.path, f"it states {count} {what}, more than {MAX_TABLE}; it is damaged")
    return range(count)
