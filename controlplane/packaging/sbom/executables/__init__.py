"""Where the parts of an executable lie: ELF, PE and Mach-O, as much as Go's build information takes.

Every number that a file states is checked against the file before it is used, and tables have limits.
"""

from __future__ import annotations

from controlplane.packaging.sbom.executables import elf, macho, pe
from controlplane.packaging.sbom.executables.image import Image
from controlplane.packaging.sbom.trees import OpenFile


def is_executable(head: bytes) -> bool:
    """Return whether the first four bytes of a file are those of an executable."""
    return head == elf.MAGIC or head[:2] == pe.MAGIC or head in macho.ORDERS or head == macho.UNIVERSAL


def images(file: OpenFile) -> list[Image]:
    """Return the images of an executable: one, or one for each architecture of a universal Mach-O.

    None for a file that only begins like one: programs for DOS, and Java classes, which share a magic number.

    Raises:
        BadMetadata: it is an executable and breaks its format.
    """
    head = file.read_at(0, 4)
    if head == elf.MAGIC:
        return [elf.image(file)]
    if head[:2] == pe.MAGIC:
        return [pe.image(file)] if pe.is_pe(file) else []
    if head in macho.ORDERS:
        return [macho.image(file, 0)]
    return [macho.image(file, offset) for offset in macho.offsets(file)] if head == macho.UNIVERSAL else []
