"""Members of an archive onto disk, within limits, below one folder, and nowhere else."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.folder import FILE_MODE, PROGRAM_MODE, Folder
from controlplane.packaging.archives.limits import Budget
from controlplane.packaging.archives.members import Entries, Member, MemberKind
from controlplane.packaging.archives.names import Claims, NameRule, checked_path, checked_target
from controlplane.packaging.records import FileEntry

NO_MODE = 0o644
"""The permissions of a file whose archive says none, as zips made on Windows."""
OF_THE_NAME = {
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
    errno.EMLINK,
}
"""Failures of the file system that the archive's names caused; all others are this machine's own."""


def extract(entries: Entries, folder: Folder, below: str, rule: NameRule, budget: Budget) -> list[FileEntry]:
    """Write the members below ``below`` (empty: the folder itself); files and links, sorted by path.

    The paths of the result begin at the folder. Raises ``BadArtefact`` for what is wrong with the archive,
    OSError where the machine fails; whoever opened the folder by ``filled`` finds it empty then.
    """
    extraction = _Extraction(folder, below, rule, budget)
    for member, content in entries:
        extraction.add(member, content)
    return sorted(extraction.files.values(), key=lambda entry: entry.path)


class _Extraction:
    """One archive on its way to disk."""

    def __init__(self, folder: Folder, below: str, rule: NameRule, budget: Budget) -> None:
        self.files: dict[str, FileEntry] = {}
        self._folder = folder
        self._below = below
        self._rule = rule
        self._budget = budget
        self._claims = Claims(rule)

    def add(self, member: Member, content: Iterable[bytes]) -> None:
        """Check the member's name, then write it."""
        path = checked_path(member.name, self._rule, self._budget.limits)
        if not path:
            if member.kind is not MemberKind.FOLDER:
                message = "names no file; every member needs a name"
                raise BadArtefact(Code.NAME_NOT_PORTABLE, member.name, message)
            return
        self._claims.claim(path, member.kind)
        try:
            self._write(path, member, content)
        except OSError as error:
            if error.errno not in OF_THE_NAME:
                raise
            message = f"cannot be written under this name ({error.strerror}); rename it"
            raise BadArtefact(Code.NAME_NOT_PORTABLE, member.name, message) from None

    def _place(self, path: str) -> str:
        return f"{self._below}/{path}" if self._below else path

    def _write(self, path: str, member: Member, content: Iterable[bytes]) -> None:
        place = self._place(path)
        if member.kind is MemberKind.FOLDER:
            self._folder.at(place, create=True)
        elif member.kind is MemberKind.SYMLINK:
            self.files[path] = self._link(path, place, member)
        elif member.kind is MemberKind.HARDLINK:
            self.files[path] = self._same(path, place, member)
        else:
            self.files[path] = self._file(place, member, content)

    def _link(self, path: str, place: str, member: Member) -> FileEntry:
        target = checked_target(path, member.target, self._rule, self._budget.limits)
        self._folder.link(place, target)
        digest = hashlib.sha256(target.encode()).hexdigest()
        return FileEntry(place, len(target.encode()), digest, 0o777, target)

    def _same(self, path: str, place: str, member: Member) -> FileEntry:
        old = checked_path(member.target, self._rule, self._budget.limits)
        known = self.files.get(old)
        if known is None or known.link_target:
            message = f"is a hard link to {printable(member.target)!r}, no earlier file of the archive"
            raise BadArtefact(Code.LINK_ESCAPES, path, message)
        # Whoever copies or packs the tree again writes these bytes once more.
        self._budget.write(known.size, path)
        self._folder.same_file(place, self._place(old))
        return FileEntry(place, known.size, known.sha256, known.mode)

    def _file(self, place: str, member: Member, content: Iterable[bytes]) -> FileEntry:
        descriptor = self._folder.new_file(place)
        try:
            size, digest = self._copy(descriptor, member, content)
            mode = member.mode & 0o777 or NO_MODE
            os.fchmod(descriptor, PROGRAM_MODE if mode & 0o111 else FILE_MODE)
        finally:
            os.close(descriptor)
        return FileEntry(place, size, digest, mode)

    def _copy(self, descriptor: int, member: Member, content: Iterable[bytes]) -> tuple[int, str]:
        digest = hashlib.sha256()
        size = 0
        for piece in content:
            size += len(piece)
            if size > self._budget.limits.file_bytes:
                message = f"is larger than {self._budget.limits.file_bytes} bytes"
                raise BadArtefact(Code.FILE_TOO_LARGE, member.name, message)
            self._budget.write(len(piece), member.name)
            digest.update(piece)
            _write_all(descriptor, piece)
        return size, digest.hexdigest()


def _write_all(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]
