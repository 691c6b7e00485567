"""The reader for each format of archives: where one for cab or cpio is added."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controlplane.packaging.archives.formats import Format, Shape
from controlplane.packaging.archives.limits import Budget
from controlplane.packaging.archives.members import Entries
from controlplane.packaging.archives.names import JAVA, PORTABLE, NameRule
from controlplane.packaging.archives.streams import Pull, decompressed
from controlplane.packaging.archives.tar import tar_members
from controlplane.packaging.archives.window import Window
from controlplane.packaging.archives.zip import directory, zip_members

MANIFEST = "META-INF/MANIFEST.MF"


def _tar(window: Window, shape: Shape, budget: Budget) -> tuple[Entries, NameRule]:
    pieces = decompressed(window, shape.compression, budget)
    return tar_members(Pull(pieces, window.name), budget), PORTABLE


def _zip(window: Window, shape: Shape, budget: Budget) -> tuple[Entries, NameRule]:
    entries = directory(window, budget)
    rule = JAVA if any(entry.name == MANIFEST for entry in entries) else PORTABLE
    return zip_members(window, entries, budget), rule


READERS: Mapping[Format, Callable[[Window, Shape, Budget], tuple[Entries, NameRule]]] = {
    Format.TAR: _tar,
    Format.ZIP: _zip,
}
"""By format: what yields the members, and the rule for their names."""


def open_entries(window: Window, shape: Shape, budget: Budget) -> tuple[Entries, NameRule]:
    """The members of an archive of a format that ``READERS`` has."""
    return READERS[shape.format](window, shape, budget)
