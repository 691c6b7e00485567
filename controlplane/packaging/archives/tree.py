"""The files of an extracted package, for those who read its metadata."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.folder import Folder
from controlplane.packaging.archives.limits import Limits
from controlplane.packaging.archives.window import Window
from controlplane.packaging.records import FileEntry


class Tree:
    """Extracted files by path, and bounded reading of them."""

    def __init__(self, folder: Folder, files: Sequence[FileEntry], limits: Limits) -> None:
        self.files = {entry.path: entry for entry in files}
        self.limits = limits
        self._folder = folder

    @contextmanager
    def window(self, path: str) -> Iterator[Window]:
        """The bytes of one file, which is no link, for as long as the block lasts."""
        descriptor = self._folder.old_file(path)
        try:
            yield Window(descriptor, 0, os.fstat(descriptor).st_size, path)
        finally:
            os.close(descriptor)

    def read(self, path: str, limit: int | None = None) -> bytes:
        """A file of metadata; ``MEMBER_MISSING``, ``LINK_NOT_ALLOWED`` or ``METADATA_TOO_LARGE``.

        ``limit`` in bytes is that of ``Limits.metadata_bytes`` where none is given.
        """
        limit = self.limits.metadata_bytes if limit is None else limit
        entry = self.files.get(path)
        if entry is None:
            raise BadArtefact(Code.MEMBER_MISSING, path, "is missing, and every package of this type has it")
        if entry.link_target:
            raise BadArtefact(Code.LINK_NOT_ALLOWED, path, "is a link; metadata is a file")
        if entry.size > limit:
            message = f"has {entry.size} bytes, more than the {limit} of real metadata"
            raise BadArtefact(Code.METADATA_TOO_LARGE, path, message)
        with self.window(path) as window:
            return window.read(0, window.size, "its text")

    def text(self, path: str, limit: int | None = None) -> str:
        """A file of metadata as text, without a byte order mark; ``BAD_ENCODING`` where it is not UTF-8."""
        return decoded(self.read(path, limit), path)


def decoded(raw: bytes, path: str) -> str:
    """Bytes as text; ``BAD_ENCODING`` where they are not UTF-8 or hold a NUL."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadArtefact(Code.BAD_ENCODING, path, f"is not UTF-8 at byte {error.start}") from None
    if "\0" in text:
        raise BadArtefact(Code.BAD_ENCODING, path, "holds a NUL, which no text does")
    return text
