"""Metadata out of archives within a package: jars in a .deb or in a jar, wheels in a tarball.

The reader of artefacts extracts what a package consists of; what lies in an archive that is a plain file of
the package is needed here only for the few small members that name components. Only those are unpacked, each
with a limit, to memory and never to disk.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING

from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.text import shown
from controlplane.packaging.sbom.trees import NESTED, OpenFile, Tree

if TYPE_CHECKING:
    # In collections.abc only since Python 3.12.
    from typing_extensions import Buffer

MAX_MEMBERS = 100_000
"""Entries of one archive's directory; the largest real jars have about 60,000."""

MAX_DIRECTORY = 32 * 1024 * 1024
"""Bytes of an archive's directory: 100,000 entries with paths of 200 characters, and some to spare."""

MAX_MEMBER = 1024 * 1024
"""Bytes of one metadata member of an archive within a package."""

MAX_INNER = 64 * 1024 * 1024
"""Bytes of an archive within an archive, which is unpacked to memory."""

MAX_TOTAL = 256 * 1024 * 1024
"""Bytes that are unpacked from all the archives of one package."""

MAX_DEPTH = 4
"""Archives within each other: a .deb with a .war with a jar that has another in it is three."""

# A zip ends with a record of 22 bytes and a comment of at most 65,535; before it, if large, one of 20 and
# one of 56.
_TAIL = 65_535 + 22 + 76
_ZIP64_DISTANCE = 76

_ARCHIVE = re.compile(r"\.(?:jar|war|ear|hpi|jpi|aar|whl)$", re.IGNORECASE)
_WANTED = re.compile(
    r"(?:^|/)META-INF/MANIFEST\.MF$|(?:^|/)META-INF/maven/[^/]+/[^/]+/pom\.properties$"
    r"|(?:^|/)[^/]+\.dist-info/(?:METADATA|RECORD)$",
    re.IGNORECASE,
)


class _Budget:
    """What may still be unpacked from one package."""

    def __init__(self) -> None:
        self.left = MAX_TOTAL

    def spend(self, member: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise BadMetadata(
                member, f"the archives within this package unpack to more than {MAX_TOTAL} bytes of metadata"
            )


def expand(tree: Tree) -> list[str]:
    """Add the metadata members of every archive in ``tree``; return what could not be read, in words."""
    budget = _Budget()
    problems = []
    for path in [path for path in tree.paths if _ARCHIVE.search(path)]:
        try:
            with tree.open(path) as file:
                tree.add_nested(path, dict(_members(path, io.BufferedReader(_Raw(file)), budget, 1)))
        except BadMetadata as error:
            problems.append(str(error))
    return problems


def _members(path: str, source: IO[bytes], budget: _Budget, depth: int) -> Iterator[tuple[str, bytes]]:
    _refuse_large_directory(path, source)
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise BadMetadata(
            path, f"it is named like an archive and cannot be read as one: {shown(error)}"
        ) from None
    with archive:
        entries = archive.infolist()
        if len(entries) > MAX_MEMBERS:
            raise BadMetadata(path, f"it has {len(entries)} members, more than {MAX_MEMBERS}; split it")
        for entry in entries:
            if _WANTED.search(entry.filename):
                yield entry.filename, _unpacked(path, archive, entry, MAX_MEMBER, budget)
            elif _ARCHIVE.search(entry.filename):
                yield from _inner(path, archive, entry, budget, depth)


def _inner(
    path: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: _Budget, depth: int
) -> Iterator[tuple[str, bytes]]:
    if depth >= MAX_DEPTH:
        raise BadMetadata(path, f"archives lie more than {MAX_DEPTH} deep in it; unpack some of them")
    data = _unpacked(path, archive, entry, MAX_INNER, budget)
    inner: Mapping[str, bytes] = dict(
        _members(f"{path}{NESTED}{entry.filename}", io.BytesIO(data), budget, depth + 1)
    )
    for member, content in inner.items():
        yield f"{entry.filename}{NESTED}{member}", content


def _unpacked(
    path: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int, budget: _Budget
) -> bytes:
    member = f"{path}{NESTED}{shown(entry.filename)}"
    try:
        with archive.open(entry) as stream:
            data = stream.read(limit + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        RuntimeError,
        NotImplementedError,
        EOFError,
        ValueError,
    ) as error:
        raise BadMetadata(member, f"it cannot be unpacked: {shown(error)}") from None
    if len(data) > limit:
        raise BadMetadata(member, f"it unpacks to more than {limit} bytes; the archive is not what it claims")
    budget.spend(member, len(data))
    return data


def _refuse_large_directory(path: str, source: IO[bytes]) -> None:
    # zipfile reads the whole directory to memory before anybody can count its entries.
    end = source.seek(0, io.SEEK_END)
    start = max(0, end - _TAIL)
    source.seek(start)
    tail = source.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    size = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if at >= _ZIP64_DISTANCE and tail[at - 20 : at - 16] == b"PK\x06\x07":
        large = at - _ZIP64_DISTANCE
        size = max(size % 0xFFFFFFFF, int.from_bytes(tail[large + 40 : large + 48], "little"))
    source.seek(0)
    if size > MAX_DIRECTORY:
        raise BadMetadata(path, f"its directory has {size} bytes, more than {MAX_DIRECTORY}; split it")


class _Raw(io.RawIOBase):
    """An open file of the tree as a stream that can be searched."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise OSError("a position before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        data = self._file.read_at(self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
