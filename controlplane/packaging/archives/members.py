"""What every reader of an archive yields, whatever the format: a further one (cab, cpio) yields it too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class MemberKind(Enum):
    """What a member becomes on disk. Devices and pipes are refused by the readers themselves."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of an archive, in the archive's own words: its name and target are not yet checked."""

    name: str
    kind: MemberKind
    size: int
    """Bytes of content that the archive declares; 0 but for files."""
    mode: int
    """Permission bits; 0 where the archive has none."""
    target: str = ""
    """Of a link."""


Entries = Iterator[tuple[Member, Iterable[bytes]]]
"""Members with their content, in the archive's order. Content is read before the next entry is asked for."""
