"""How much an artefact may ask of us, and how much of that it has used."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What one artefact may cost. All sizes are bytes."""

    artefact_bytes: int = 4 * GIB
    """Of the artefact itself: the largest wheels and debs that people ship are near 3 GiB."""
    total_bytes: int = 8 * GIB
    """All that is written or decompressed: twice the largest artefact, and still less than a disk."""
    file_bytes: int = 4 * GIB
    """One extracted file."""
    members: int = 100_000
    """Entries of all archives together, extended headers too: more than the largest wheel or jar has."""
    ratio: int = 200
    """Decompressed bytes for each byte of the artefact: text comes to 30, a bomb of deflate to 1,032."""
    ratio_from: int = 32 * MIB
    """Decompressed bytes below which the ratio is not asked for: a small file of zeros harms nobody."""
    depth: int = 2
    """Archives within archives that are entered; deeper ones are noted and left closed."""
    name_bytes: int = 1024
    """A member's whole path, or a link's target, in UTF-8: below PATH_MAX (4,096) with a root before it."""
    part_bytes: int = 255
    """One part of a path: NAME_MAX of the file systems in use."""
    path_depth: int = 64
    """Folders in a path: walking a tree keeps one descriptor for each level."""
    metadata_bytes: int = 4 * MIB
    """One text of metadata: the longest have a whole manual for a description."""
    list_bytes: int = 16 * MIB
    """One list of files: RECORD of a wheel of 100,000 files comes to 12 MiB."""
    header_bytes: int = MIB
    """One extended header of a tar: extended attributes and long names fit many times over."""
    memory_bytes: int = 128 * MIB
    """What a decompressor may allocate: ``xz -9`` needs 65 MiB to unpack."""


DEFAULT = Limits()
"""The limits where nobody sets others."""
EXHAUSTED = (Code.RATIO_EXCEEDED, Code.TOTAL_TOO_LARGE, Code.TOO_MANY_MEMBERS)
"""What a budget raises: the whole artefact costs too much, whichever part of it asked last."""


class Budget:
    """What one artefact has used of its limits, over all archives in it."""

    def __init__(self, limits: Limits, artefact_bytes: int) -> None:
        self.limits = limits
        self._artefact_bytes = max(artefact_bytes, 1)
        self._members = 0
        self._inflated = 0
        self._written = 0

    def member(self, name: str) -> None:
        """Count an entry; raise ``TOO_MANY_MEMBERS`` beyond the limit."""
        self._members += 1
        if self._members > self.limits.members:
            raise BadArtefact(
                Code.TOO_MANY_MEMBERS, name, f"more than {self.limits.members} entries; ship fewer files"
            )

    def inflate(self, count: int, name: str) -> None:
        """Count decompressed bytes; raise ``RATIO_EXCEEDED`` or ``TOTAL_TOO_LARGE`` beyond the limits."""
        self._inflated += count
        if self._inflated > self.limits.total_bytes:
            raise self._too_large(name)
        allowed = max(self.limits.ratio_from, self.limits.ratio * self._artefact_bytes)
        if self._inflated > allowed:
            raise BadArtefact(
                Code.RATIO_EXCEEDED,
                name,
                f"decompresses to more than {self.limits.ratio} times the artefact's {self._artefact_bytes} "
                "bytes, as a decompression bomb does",
            )

    def write(self, count: int, name: str) -> None:
        """Count bytes that go to disk; raise ``TOTAL_TOO_LARGE`` beyond the limit."""
        self._written += count
        if self._written > self.limits.total_bytes:
            raise self._too_large(name)

    def _too_large(self, name: str) -> BadArtefact:
        limit = self.limits.total_bytes
        return BadArtefact(Code.TOTAL_TOO_LARGE, name, f"the artefact unpacks to more than {limit} bytes")
