"""Foreign programs, opened once: the bytes whose digest was compared are the bytes that are started."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

_CHUNK = 1 << 20
_ELF = b"\x7fELF"


class Refused(Exception):
    """The program is not started; the message says why and what to do."""


def open_pinned(path: Path, sha256: str) -> int:
    """Open an executable and return its descriptor, closed when it is executed; raises ``Refused``."""
    if not path.is_absolute():
        raise Refused(f"program: {path} is not absolute; no PATH is searched")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"program: {path} cannot be opened: {error.strerror}") from None
    try:
        _check(path, descriptor, sha256)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, descriptor: int, sha256: str) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
        raise Refused(f"program: {path} is not an executable file")
    if found.st_mode & 0o022:
        raise Refused(f"program: {path} can be written by others than its owner; chmod go-w")
    digest = hashlib.sha256()
    head = b""
    while part := os.read(descriptor, _CHUNK):
        head = head or part[: len(_ELF)]
        digest.update(part)
    if digest.hexdigest() != sha256:
        raise Refused(
            f"program: {path} has the digest {digest.hexdigest()}, pinned is {sha256}; pin it again if it was"
            " replaced on purpose"
        )
    if head != _ELF:
        raise Refused(f"program: {path} is a script; name the program that it starts")
