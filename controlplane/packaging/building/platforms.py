"""What a format says of its platform, in the words of manifests and of Debian."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fleetwright.manifest import ANY, Platform

from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.records import ArtefactFacts, ArtefactType

# Names that ELF, wheels, npm, rpm and Go give to the same processors; Debian's names are what all become.
_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "x64": "amd64",
    "win_amd64": "amd64",
    "aarch64": "arm64",
    "win_arm64": "arm64",
    "i386": "i386",
    "i486": "i386",
    "i586": "i386",
    "i686": "i386",
    "ia32": "i386",
    "x86": "i386",
    "win32": "i386",
    "armv7l": "armhf",
    "armv7": "armhf",
    "ppc64le": "ppc64el",
    "all": ANY,
    "noarch": ANY,
    "any": ANY,
    "none": ANY,
    "": ANY,
}
_LONGEST_FIRST: Final = sorted((name for name in _ARCHITECTURES if name), key=len, reverse=True)
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")


def platforms_of(facts: ArtefactFacts) -> tuple[Platform, ...]:
    """Return what an artefact runs on by its own word; raises ``BuildFailed`` for a word that is none."""
    system = facts.os_family or ("linux" if facts.type is ArtefactType.DEB else ANY)
    return (Platform(_word(system, "os"), architecture_of(facts.architecture)),)


def parse_platform(text: str) -> Platform:
    """Read "linux/amd64" as somebody gives it, in any of the names of an architecture.

    Raises ``BuildFailed``.
    """
    system, slash, architecture = text.partition("/")
    if not slash:
        raise BuildFailed("PLATFORM", "target_platform", f"{text[:64]!r} is not of the form 'linux/amd64'")
    return Platform(_word(system.lower(), "target_platform"), architecture_of(architecture))


def platform_text(platform: Platform) -> str:
    """Return a platform as ``parse_platform`` reads it."""
    return f"{platform.os}/{platform.architecture}"


def fits(wanted: Platform, own: Platform) -> bool:
    """Return whether what runs on ``own`` by its own word can be meant for ``wanted``."""
    return own.os in (ANY, wanted.os) and own.architecture in (ANY, wanted.architecture)


def architecture_of(own: str) -> str:
    """Return Debian's name of an architecture; one that is not known here keeps its own."""
    lower = own.strip().lower()
    if lower in _ARCHITECTURES:
        return _ARCHITECTURES[lower]
    # The platform tag of a wheel ends with it: "manylinux_2_17_x86_64", "macosx_11_0_arm64".
    for name in (*_LONGEST_FIRST, "arm64"):
        if lower.endswith(f"_{name}"):
            return _ARCHITECTURES.get(name, name)
    return _word(lower, "architecture")


def debian_architecture(platforms: Sequence[Platform]) -> str:
    """Return what a .deb for these platforms names; raises ``BuildFailed`` where no single one does."""
    if any(platform.os not in ("linux", ANY) for platform in platforms):
        raise BuildFailed(
            "PLATFORM", "platforms", "a .deb is for Linux; give platforms with os 'linux' or 'any'"
        )
    names = {platform.architecture for platform in platforms}
    if len(names) != 1:
        raise BuildFailed(
            "PLATFORM", "platforms", f"a .deb has one architecture, not {', '.join(sorted(names))}"
        )
    name = names.pop()
    return "all" if name == ANY else name


def _word(text: str, field: str) -> str:
    if not _WORD.fullmatch(text):
        raise BuildFailed(
            "PLATFORM", field, f"{text[:64]!r} is no name of a platform; give platforms yourself"
        )
    return text
