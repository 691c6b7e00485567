"""Versions of Go modules (go.dev/ref/mod#versions) and of the toolchain and its standard library.

Modules have semantic versions with a leading "v", which OSV leaves out. A pseudo-version
("v0.0.0-20191109021931-daa7c04131f5") is a pre-release and needs no rule of its own; "+incompatible" is build
metadata. The toolchain's own tags ("go1.21rc2") are written as Go's vulnerability database writes them
("1.21.0-rc.2").
"""

from __future__ import annotations

import re
from typing import Any

from controlplane.packaging.advisories.versions import semver
from controlplane.packaging.advisories.versions.text import checked

_TAG = re.compile(
    r"(?:go)?(?P<major>[0-9]+)\.(?P<minor>[0-9]+)(?:\.(?P<patch>[0-9]+))?(?P<stage>alpha|beta|rc)(?P<number>[0-9]+)"
)


def parse(text: str) -> Any:
    """Return the sort key of a version. Raises ``VersionError``."""
    version = checked(text, "Go")
    tag = _TAG.fullmatch(version)
    if tag is not None:
        patch = tag["patch"] or "0"
        version = f"{tag['major']}.{tag['minor']}.{patch}-{tag['stage']}.{int(tag['number'])}"
    elif version.startswith("go"):
        version = version.removeprefix("go")
    return semver.parse(version, strict=True, kind="Go")
