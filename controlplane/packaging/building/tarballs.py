"""Gzipped tar, the same bytes for the same files: no owners, one time, no name or time of its own.

Entries are written in the order in which they come. pax records stand only where ustar has no room (a long
path, a file above 8 GiB), and hold nothing else.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.payload import PayloadFile, copy

LEVEL: Final = 6
"""Fixed, for the bytes depend on it."""
MAX_EPOCH: Final = 8**11 - 1
"""Seconds: what the field of ustar holds, until the year 2242."""
_END: Final = b"\0" * 1_024
_BLOCK: Final = 512


class Tarball:
    """A tar that is being written; ``of_gzip`` opens one."""

    def __init__(self, write: Callable[[bytes], object], epoch: int) -> None:
        self._write = write
        self._epoch = epoch

    def folder(self, name: str) -> None:
        """Add a folder, mode 0755."""
        self._header(f"{name}/" if name != "." else "./", tarfile.DIRTYPE, 0o755)

    def text(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file with this content."""
        self._header(name, tarfile.REGTYPE, mode, size=len(content))
        self._write(content)
        self._pad(len(content))

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._header(name, tarfile.SYMTYPE, 0o777, target=target)

    def payload(self, name: str, one: PayloadFile) -> None:
        """Add a file or link of the payload; raises ``BuildFailed`` where it changed since intake."""
        if one.file.link_target:
            self.link(name, one.file.link_target)
            return
        self._header(name, tarfile.REGTYPE, one.file.mode, size=one.file.size)
        copy(one, self._write)
        self._pad(one.file.size)

    def _header(self, name: str, kind: bytes, mode: int, size: int = 0, target: str = "") -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, size, target, self._epoch
        try:
            self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        except (ValueError, UnicodeError) as error:
            raise BuildFailed("NOT_IN_TAR", name, f"cannot stand in a tar: {error}") from error

    def _pad(self, size: int) -> None:
        self._write(b"\0" * (-size % _BLOCK))


@contextmanager
def of_gzip(output: BinaryIO, epoch: int) -> Iterator[Tarball]:
    """Write a gzipped tar to ``output``, of which only what was written before is kept on an error."""
    if not 0 <= epoch <= MAX_EPOCH:
        raise BuildFailed(
            "EPOCH", "SOURCE_DATE_EPOCH", f"is {epoch}; seconds from 0 to {MAX_EPOCH} are possible"
        )
    with gzip.GzipFile("", "wb", LEVEL, output, mtime=0) as packed:
        yield Tarball(packed.write, epoch)
        packed.write(_END)


def tools() -> dict[str, str]:
    """Return by name and version what the bytes depend on beside the input."""
    return {"zlib": zlib.ZLIB_RUNTIME_VERSION}
