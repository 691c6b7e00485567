"""The file name of a package: what agents and people see of it, and a part of its path in a channel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from fleetwright.manifest import ANY, Manifest, Platform

from controlplane.packaging.building.control import debian_name, debian_version
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.platforms import debian_architecture

LONGEST: Final = 200
"""Characters; what a channel allows in one part of a path (``trust.tuf.roles``)."""

_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9._+~-]+")
_PLAIN: Final = ("archive", "binary")
"""Types that a name does not tell: people expect "tool-1.2.tar.gz"."""


def archive_name(manifest: Manifest) -> str:
    """Return "<name>-<version>-<type>-<os>-<architecture>.tar.gz", without what says nothing.

    The type is in it because a project has a wheel and a sdist of one version.
    """
    words = [manifest.name, manifest.version]
    words += [] if manifest.type in _PLAIN else [manifest.type]
    words += _platform_words(manifest.platforms)
    return _bounded("-".join(map(_word, words)), ".tar.gz")


def deb_name(manifest: Manifest) -> str:
    """Return "<package>_<version>_<architecture>.deb" as Debian names files: without the version's epoch."""
    version = debian_version(manifest.version).rpartition(":")[2]
    words = [debian_name(manifest.name), version, _debian_word(manifest.platforms)]
    return _bounded("_".join(map(_word, words)), ".deb")


def _platform_words(platforms: Sequence[Platform]) -> list[str]:
    if len(platforms) != 1:
        return ["multi"]
    return [word for word in (platforms[0].os, platforms[0].architecture) if word != ANY]


def _debian_word(platforms: Sequence[Platform]) -> str:
    try:
        return debian_architecture(platforms)
    except BuildFailed:
        return "multi"


def _word(text: str) -> str:
    return _NOT_IN_NAME.sub("-", text).strip("-._+~") or "package"


def _bounded(stem: str, ending: str) -> str:
    if len(stem) + len(ending) <= LONGEST:
        return f"{stem}{ending}"
    digest = hashlib.sha256(stem.encode()).hexdigest()[:16]
    return f"{stem[: LONGEST - len(ending) - 17]}-{digest}{ending}"
