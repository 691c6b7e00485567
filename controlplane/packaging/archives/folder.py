"""Files below one folder, reached by descriptors alone: no path is ever resolved through a link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER_MODE, FILE_MODE, PROGRAM_MODE = 0o755, 0o644, 0o755
"""On disk every file is readable, for the scanners of another user, and writable by its owner alone.

What the archive said of permissions is kept in ``FileEntry.mode``."""


class Folder:
    """An open folder and the chain of its sub-folders that was used last."""

    def __init__(self, path: Path) -> None:
        self._chain: list[tuple[str, int]] = [("", os.open(path, FOLDER))]

    def close(self) -> None:
        """Close every descriptor."""
        self._shorten(0)

    @property
    def root(self) -> int:
        """The descriptor of the folder itself."""
        return self._chain[0][1]

    def names(self) -> list[str]:
        """What lies directly in the folder."""
        return os.listdir(self.root)

    def at(self, path: str, *, create: bool) -> int:
        """A descriptor of the folder ``path``, valid until the next call.

        Made, with those above, on demand.
        """
        parts = path.split("/") if path else []
        known = self._known(parts)
        self._shorten(known + 1)
        for part in parts[known:]:
            self._chain.append((part, self._enter(self._chain[-1][1], part, create)))
        return self._chain[-1][1]

    def _known(self, parts: list[str]) -> int:
        count = 0
        for (name, _), part in zip(self._chain[1:], parts, strict=False):
            if name != part:
                break
            count += 1
        return count

    def _shorten(self, length: int) -> None:
        while len(self._chain) > length:
            os.close(self._chain.pop()[1])

    def _enter(self, parent: int, part: str, create: bool) -> int:
        try:
            return os.open(part, FOLDER, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
        os.mkdir(part, dir_fd=parent)
        descriptor = os.open(part, FOLDER, dir_fd=parent)
        os.fchmod(descriptor, FOLDER_MODE)
        return descriptor

    def new_file(self, path: str) -> int:
        """A descriptor of a file that was not there, to write to; the caller closes it."""
        above, _, name = path.rpartition("/")
        return os.open(name, NEW_FILE, 0o600, dir_fd=self.at(above, create=True))

    def old_file(self, path: str) -> int:
        """A descriptor of a file that is there and is no link, to read from; the caller closes it."""
        above, _, name = path.rpartition("/")
        return os.open(name, OLD_FILE, dir_fd=self.at(above, create=False))

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link; whoever calls has checked the target."""
        above, _, name = path.rpartition("/")
        os.symlink(target, name, dir_fd=self.at(above, create=True))

    def same_file(self, path: str, old: str) -> None:
        """Give the file ``old``, which is no link, the further name ``path``."""
        old_above, _, old_name = old.rpartition("/")
        above, _, name = path.rpartition("/")
        source = os.dup(self.at(old_above, create=False))
        try:
            target = self.at(above, create=True)
            os.link(old_name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        finally:
            os.close(source)

    def clear(self, path: str = "") -> None:
        """Remove everything below the folder, or below its sub-folder ``path``, and never through a link."""
        for _, folders, files, descriptor in os.fwalk(".", topdown=False, dir_fd=self.at(path, create=False)):
            for name in files:
                os.unlink(name, dir_fd=descriptor)
            for name in folders:
                _remove(name, descriptor)

    def remove(self, path: str) -> None:
        """Remove the sub-folder ``path`` with everything in it, if it is there."""
        try:
            self.clear(path)
        except FileNotFoundError:
            return
        above, _, name = path.rpartition("/")
        os.rmdir(name, dir_fd=self.at(above, create=False))


def _remove(name: str, descriptor: int) -> None:
    # A link to a folder counts as a folder in a walk.
    try:
        os.rmdir(name, dir_fd=descriptor)
    except NotADirectoryError:
        os.unlink(name, dir_fd=descriptor)


@contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """A folder for as long as the block lasts."""
    folder = Folder(path)
    try:
        yield folder
    finally:
        folder.close()


@contextmanager
def filled(path: Path) -> Iterator[Folder]:
    """An empty folder to fill, which is empty again if the block raises; ValueError where it is not empty."""
    with open_folder(path) as folder:
        if folder.names():
            raise ValueError(f"{path} is not empty: extraction writes into an empty folder only")
        try:
            yield folder
        except BaseException:
            folder.clear()
            raise
