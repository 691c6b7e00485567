"""A folder of extracted files, read with limits, and what lies in archives within it.

Members of an archive within the folder appear behind "!/": ``lib/a.jar!/META-INF/MANIFEST.MF``. Only the
small members that a cataloguer may want are taken out of those; ``Tree.claimable`` says which file they came
from.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

from controlplane.packaging.records import FileEntry
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.text import decode, shown

MAX_METADATA = 16 * 1024 * 1024
"""Bytes of one metadata file; the largest real ones, lock files of huge projects, have about 10 MB."""

_ELSEWHERE = "it leads to another file than was listed; extract the package again"
_MAX_LINKS = 40

NESTED = "!/"
"""Between the path of an archive and the path of a member within it."""


class OpenFile:
    """A regular file that is read in parts; closed at the end of its block."""

    def __init__(self, path: str, number: int) -> None:
        self.path = path
        self._number = number
        status = os.fstat(number)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            os.close(number)
            raise BadMetadata(path, "it is not a regular file; extract the package again")

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer at the end of the file, none behind it.

        Raises:
            BadMetadata: the file cannot be read.
        """
        if offset >= self.size or size <= 0:
            return b""
        wanted = min(size, self.size - offset)
        try:
            return os.pread(self._number, wanted, offset)
        except OSError as error:
            raise BadMetadata(self.path, f"it cannot be read: {shown(error.strerror)}") from None


class Tree:
    """The files of one package, by path; links are known and never followed."""

    def __init__(self, root: Path, files: Sequence[FileEntry]) -> None:
        self._root = root.resolve()
        self.files: Mapping[str, FileEntry] = {entry.path: entry for entry in files}
        self._sorted = sorted(self.files)
        self._checked: set[Path] = set()
        self._nested: dict[str, bytes] = {}
        self._origin: dict[str, str] = {}

    def add_nested(self, archive: str, members: Mapping[str, bytes]) -> None:
        """Add members of an archive of this tree, by their paths within it."""
        for member, data in members.items():
            path = f"{archive}{NESTED}{member}"
            self._nested.setdefault(path, data)
            self._origin.setdefault(path, archive)
        self.__dict__.pop("paths", None)

    @cached_property
    def paths(self) -> Sequence[str]:
        """Every path that can be read, sorted: files of the folder, and members of archives in it."""
        regular = (path for path, entry in self.files.items() if not entry.link_target)
        return sorted({*regular, *self._nested})

    def __contains__(self, path: str) -> bool:
        return path in self.files or path in self._nested

    def claimable(self, path: str) -> str:
        """Return the file of the folder that holds ``path``: itself, or the archive it is a member of."""
        return self._origin.get(path, path)

    def is_nested(self, path: str) -> bool:
        """Return whether ``path`` is a member of an archive of the folder."""
        return path in self._nested

    def below(self, folder: str) -> Iterator[str]:
        """Yield the files and links whose path begins with ``folder``, sorted; all for an empty one."""
        return _beginning_with(self._sorted, folder)

    def readable_below(self, folder: str) -> Iterator[str]:
        """Yield those of ``paths`` that begin with ``folder``, sorted."""
        return _beginning_with(self.paths, folder)

    def read(self, path: str, limit: int = MAX_METADATA) -> bytes:
        """Return a file's bytes.

        Raises:
            BadMetadata: it is longer than ``limit``, a link, no file, or cannot be read.
        """
        if path in self._nested:
            return self._nested[path]
        with self.open(path) as file:
            if file.size > limit:
                raise BadMetadata(
                    path,
                    f"it has {file.size} bytes, more than the {limit} of metadata that are read; shorten it",
                )
            return file.read_at(0, limit)

    def text(self, path: str) -> str:
        """Return a file as text; errors as ``read`` has them."""
        return decode(path, self.read(path))

    def open(self, path: str) -> OpenFile:
        """Open a file of the folder, to read parts of it; errors as ``read`` has them."""
        entry = self.files.get(path)
        if entry is None or entry.link_target:
            raise BadMetadata(path, "it is not a file of this package")
        real = self._root / path
        try:
            self._refuse_links(path, real.parent)
            number = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError, RuntimeError) as error:
            linked = isinstance(error, OSError) and error.errno == errno.ELOOP
            raise BadMetadata(
                path, _ELSEWHERE if linked else f"it cannot be opened: {shown(error)}"
            ) from None
        return OpenFile(path, number)

    def _refuse_links(self, path: str, folder: Path) -> None:
        # A link that took the place of a folder since it was listed would lead elsewhere.
        if folder not in self._checked:
            if folder.resolve() != folder:
                raise BadMetadata(path, _ELSEWHERE)
            self._checked.add(folder)

    @cached_property
    def _links(self) -> Mapping[str, Sequence[str]]:
        named: dict[str, list[str]] = {}
        for path, entry in self.files.items():
            if entry.link_target:
                named.setdefault(self.target(path), []).append(path)
        return named

    def names_of(self, path: str) -> Sequence[str]:
        """Return the paths by which a file is reached: its own, and those of links that lead to it."""
        return [path, *self._links.get(path, ())]

    def target(self, path: str) -> str:
        """Return the path that a link leads to in the end, within the tree; that of a file is its own."""
        for _ in range(_MAX_LINKS):
            entry = self.files.get(path)
            if entry is None or not entry.link_target:
                return path
            folder = "" if entry.link_target.startswith("/") else path.rpartition("/")[0]
            path = posixpath.normpath(posixpath.join(folder, entry.link_target.lstrip("/")))
        return path


def _beginning_with(ordered: Sequence[str], start: str) -> Iterator[str]:
    for path in islice(ordered, bisect_left(ordered, start), None):
        if not path.startswith(start):
            return
        yield path
