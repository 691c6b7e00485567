"""One name for each machine, from the many that formats have for it: what ``uname -m`` says."""

from __future__ import annotations

from collections.abc import Mapping

MACHINES: Mapping[str, str] = {
    # Debian's names (dpkg's cputable)
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armel": "armv5l",
    "armhf": "armv7l",
    "i386": "i686",
    "loong64": "loongarch64",
    "mips64el": "mips64",
    "mipsel": "mips",
    "powerpc": "ppc",
    "ppc64el": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    # Python's platform tags
    "win32": "i686",
    "win_amd64": "x86_64",
    "win_arm64": "aarch64",
    # Node's process.arch
    "arm": "armv7l",
    "ia32": "i686",
    "ppc64": "ppc64le",
    "x64": "x86_64",
    # GNU's own, and spellings of file names
    "aarch64": "aarch64",
    "armv6l": "armv6l",
    "armv7": "armv7l",
    "armv7l": "armv7l",
    "i486": "i686",
    "i586": "i686",
    "i686": "i686",
    "ppc64le": "ppc64le",
    "x86": "i686",
    "x86-64": "x86_64",
    "x86_64": "x86_64",
}
FAMILIES: Mapping[str, str] = {
    "linux": "linux",
    "manylinux": "linux",
    "musllinux": "linux",
    "darwin": "darwin",
    "macos": "darwin",
    "macosx": "darwin",
    "osx": "darwin",
    "apple": "darwin",
    "win": "windows",
    "win32": "windows",
    "win64": "windows",
    "windows": "windows",
    "freebsd": "freebsd",
}


def machine_of(architecture: str) -> str:
    """What ``uname -m`` calls an architecture; empty where the name is none of one machine."""
    return MACHINES.get(architecture.lower(), "")
