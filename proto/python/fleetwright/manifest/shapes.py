"""The shapes of a manifest; what the fields may hold is said by ``reading``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

SCHEMA: Final = "fleetwright.package/v1"
TYPES: Final = frozenset({"wheel", "sdist", "npm", "jar", "deb", "archive", "binary"})
ANY: Final = "any"
"""The operating system or architecture of what runs on each."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What it runs on: Debian's words for architectures ("amd64", "arm64"), "linux" and so on, or "any"."""

    os: str
    architecture: str


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file of the package by its package path; a symbolic link where ``link_target`` is not empty."""

    path: str
    sha256: str
    """Lower-case hexadecimal; of a link the digest of no bytes."""
    size: int
    mode: int
    """0o755 or 0o644."""
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class CopyTree:
    """Copy what lies below the package path ``source`` to the prefix path ``destination``; "." is all of
    it.
    """

    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class Link:
    """Let ``name``, in the folder of commands, lead to the prefix path ``target``."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class DpkgInstall:
    """Give the package itself, a .deb, to dpkg; ``package`` is the name that dpkg knows it by."""

    package: str


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """Remove the prefix path ``path`` with all below it; "." is the folder of this version."""

    path: str


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove ``name`` from the folder of commands, where it leads to this package."""

    name: str


@dataclass(frozen=True, slots=True)
class DpkgRemove:
    """Let dpkg remove ``package``."""

    package: str


InstallStep = CopyTree | Link | DpkgInstall
UninstallStep = RemoveTree | Unlink | DpkgRemove


@dataclass(frozen=True, slots=True)
class FileDetect:
    """It is installed if the prefix path ``path`` has this digest."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CommandDetect:
    """It is installed if a command of the package ends with ``exit_status`` and prints ``output``.

    ``arguments[0]`` is a prefix path, never a program of the system. ``output`` is compared with
    ``matches``; an empty one allows any.
    """

    arguments: Sequence[str]
    exit_status: int
    output: str
    timeout_seconds: int


@dataclass(frozen=True, slots=True)
class DpkgDetect:
    """It is installed if dpkg has ``package`` as installed at ``version``."""

    package: str
    version: str


Detect = FileDetect | CommandDetect | DpkgDetect


@dataclass(frozen=True, slots=True)
class Rollback:
    """How the version before comes back when ``detect`` fails.

    "switch_back": versions lie beside each other, and the one before is made current again. "reinstall":
    the package file of the version before is kept and installed again, as dpkg needs it. "none": what was
    installed is removed, and nothing comes back.
    """

    strategy: str
    keep_versions: int
    """How many versions before this one are kept."""


STRATEGIES: Final = frozenset({"switch_back", "reinstall", "none"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that an agent needs to know of a package to install it, find it, and take it back."""

    name: str
    version: str
    type: str
    platforms: Sequence[Platform]
    install: Sequence[InstallStep]
    uninstall: Sequence[UninstallStep]
    detect: Detect
    rollback: Rollback
    disk_bytes: int
    """What the installed files take, in blocks of 4 KiB; the download comes on top."""
    files: Sequence[PackagedFile]
    """Sorted by path."""
    source_sha256: str
    """Of the artefact that the package was built from."""

    @property
    def folder(self) -> str:
        """A name for the folder of this version that is one safe part of a path."""
        return f"{quote(self.name, safe='@+~')}_{quote(self.version, safe='+~!')}"
