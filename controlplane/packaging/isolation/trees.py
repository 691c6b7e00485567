"""Folders that a job filled: measured, taken over and removed without believing anything in them.

None of this recurses and none follows a link: a job can make folders a hundred thousand deep.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

DEPTH = 100
"""Folders below each other that are taken over; paths have an end."""

_BLOCK = 512
"""Unit of ``st_blocks``, whatever the file system's own is."""


class UnfitTree(Exception):
    """Something in the folder cannot be taken over; the message names it."""


def measure(root: Path, most_files: int, *, settled: bool) -> tuple[int, int]:
    """Return bytes on disk and entries: more than ``most_files`` where it is too deep to count.

    Stops counting there. Where it is not ``settled``, a job is at work meanwhile: then nothing is touched,
    and what cannot be read is not counted yet.
    """
    size = count = 0
    waiting = [str(root)]
    while waiting and count <= most_files:
        folder = waiting.pop()
        try:
            if settled:
                _reopen(folder)
            for path, found in _stats(folder):
                count += 1
                size += found.st_blocks * _BLOCK
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(path)
                if count > most_files:
                    break
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return size, most_files + 1
            if settled or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
                raise
    return size, count


def _stats(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry.path, entry.stat(follow_symlinks=False)


def _reopen(folder: str, parent: int | None = None) -> None:
    """Make a folder readable that its owner closed to itself, where that is this user; root reads all.

    Never what a link leads to: that is not the job's to choose.
    """
    if os.geteuid() != 0:
        with suppress(FileNotFoundError, NotADirectoryError):
            opened = os.open(folder, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)
            try:
                os.chmod(f"/proc/self/fd/{opened}", 0o700)
            finally:
                os.close(opened)


def take(source: Path, target: Path) -> None:
    """Move a folder that no process writes any more, its files owned by this process and made plain.

    Raises ``UnfitTree`` for what is no file, folder or link that stays inside, for a file with a second name,
    and for folders too deep; ``OSError`` where the target exists or cannot be written.
    """
    if not stat.S_ISDIR(source.lstat().st_mode):
        raise UnfitTree("the folder itself was replaced")
    for entry, depth in _entries(source):
        _make_plain(entry, source, depth)
    _own(source, 0o755)
    if target.exists() or target.is_symlink():
        raise FileExistsError(errno.EEXIST, "exists already", str(target))
    shutil.move(source, target)


def _entries(root: Path) -> Iterator[tuple[os.DirEntry[str], int]]:
    waiting = [(str(root), 1)]
    while waiting:
        folder, depth = waiting.pop()
        _reopen(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry, depth
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))


def _make_plain(entry: os.DirEntry[str], root: Path, depth: int) -> None:
    shown = os.path.relpath(entry.path, root).encode("utf-8", "backslashreplace").decode()
    if depth > DEPTH:
        raise UnfitTree(f"{shown[:200]}…: stands below {depth} folders; at most {DEPTH}")
    found = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        if not _stays_inside(entry.path, root):
            raise UnfitTree(f"{shown}: is a link that leads out of the folder")
        _own(Path(entry.path), None)
    elif stat.S_ISDIR(found.st_mode):
        _own(Path(entry.path), 0o755)
    elif not stat.S_ISREG(found.st_mode):
        raise UnfitTree(f"{shown}: is neither a file nor a folder nor a link")
    elif found.st_nlink > 1:
        raise UnfitTree(f"{shown}: has a second name; a file is taken over by one")
    else:
        _own(Path(entry.path), 0o755 if found.st_mode & 0o100 else 0o644)


def _stays_inside(path: str, root: Path) -> bool:
    target = os.readlink(path)
    return not os.path.isabs(target) and Path(
        os.path.normpath(os.path.join(os.path.dirname(path), target))
    ).is_relative_to(root)


def _own(path: Path, mode: int | None) -> None:
    if os.geteuid() == 0:
        os.chown(path, 0, 0, follow_symlinks=False)
    if mode is not None:
        os.chmod(path, mode)


def remove(root: Path) -> None:
    """Remove a folder with all in it, however deep; one that is gone already is no error.

    Folders are first moved up to the root, one level at a time: no path grows long.
    """
    with suppress(FileNotFoundError):
        top = _opened(str(root), None)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(root)


def _empty(top: int) -> None:
    number = 0
    while names := _clear_files(top):
        for name in names:
            with suppress(FileNotFoundError):
                folder = _opened(name, top)
                try:
                    for inner in _clear_files(folder):
                        number += 1
                        _reopen(inner, folder)
                        os.rename(inner, _free_name(top, number), src_dir_fd=folder, dst_dir_fd=top)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)


def _free_name(top: int, number: int) -> str:
    name = f".{number}"
    while True:
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name
        name = f"{name}.x"


def _clear_files(folder: int) -> list[str]:
    """Remove what is no folder; returns the names of those that are."""
    folders = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if is_folder:
            folders.append(name)
        else:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return folders


def _opened(name: str, parent: int | None) -> int:
    _reopen(name, parent)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
