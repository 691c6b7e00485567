"""Which members make a .deb (deb(5)), and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from controlplane.packaging.building.ar import Member
from controlplane.packaging.building.errors import BuildFailed

BINARY: Final = "debian-binary"
CONTROLS: Final = frozenset({"control.tar", "control.tar.gz", "control.tar.xz", "control.tar.zst"})
DATAS: Final = frozenset(
    {"data.tar", *(f"data.tar.{ending}" for ending in ("gz", "xz", "zst", "bz2", "lzma"))}
)


def deb_members(members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Return the three members that make a .deb, in their order, and the others, which dpkg passes over.

    Raises ``BuildFailed`` where dpkg would not take it, or could take other members than another reader.
    """
    made = [one for one in members if not one.name.startswith("_")]
    names = [one.name for one in made]
    if len(names) != 3 or names[0] != BINARY or names[1] not in CONTROLS or names[2] not in DATAS:
        raise BuildFailed(
            "NOT_A_DEB", "ar", f"a .deb has {BINARY}, control.tar and data.tar; this has {names[:8]}"
        )
    return made, [one for one in members if one.name.startswith("_")]
