"""One executable or library: what its headers say of the machine and the system that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controlplane.packaging.archives.facts.archive import named
from controlplane.packaging.archives.facts.elf import elf_headers
from controlplane.packaging.archives.facts.executable import Executable
from controlplane.packaging.archives.facts.mach_o import mach_o_headers
from controlplane.packaging.archives.facts.pe import pe_headers
from controlplane.packaging.archives.formats import Format
from controlplane.packaging.archives.window import Window
from controlplane.packaging.records import ArtefactFacts, ArtefactType

READERS: Mapping[Format, Callable[[Window], Executable]] = {
    Format.ELF: elf_headers,
    Format.PE: pe_headers,
    Format.MACH_O: mach_o_headers,
}


def binary_facts(window: Window, kind: Format, declared_name: str) -> ArtefactFacts:
    """Architecture and system from the headers; name and version from the file's name, which is all there is.

    Raises ``TRUNCATED`` where the file is shorter than its headers say, ``MALFORMED``,
    ``UNSUPPORTED_FORMAT`` for what is no program or library.
    """
    found = READERS[kind](window)
    said = named(declared_name)
    details = {"format": kind.value, **found.details}
    return ArtefactFacts(
        ArtefactType.BINARY, said.name, said.version, found.architecture, found.os_family, details
    )
