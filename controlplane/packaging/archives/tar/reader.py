"""The members of a tar, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.limits import Budget
from controlplane.packaging.archives.members import Entries, Member, MemberKind
from controlplane.packaging.archives.streams import Pull
from controlplane.packaging.archives.tar import extensions
from controlplane.packaging.archives.tar.headers import BLOCK, ZEROS, Header, parsed
from controlplane.packaging.archives.window import CHUNK

KINDS = {
    b"0": MemberKind.FILE,
    b"\0": MemberKind.FILE,
    b"7": MemberKind.FILE,
    b"1": MemberKind.HARDLINK,
    b"2": MemberKind.SYMLINK,
    b"5": MemberKind.FOLDER,
}
DEVICES = {b"3": "a character device", b"4": "a block device", b"6": "a named pipe"}
SPARSE = b"S"


def tar_members(source: Pull, budget: Budget) -> Entries:
    """Members with their content, which is to be read before the next is asked for.

    Raises ``TRUNCATED``, ``MALFORMED``, ``CHECKSUM_MISMATCH``, ``CONFLICTING_HEADERS``, ``DEVICE_NODE``,
    ``SPARSE_FILE``, ``UNSUPPORTED_MEMBER``, ``FILE_TOO_LARGE``, ``TOO_MANY_MEMBERS``, ``TRAILING_DATA``,
    ``NUL_IN_NAME``, ``NAME_NOT_PORTABLE``.
    """
    extension = extensions.Extension()
    while (block := source.exactly(BLOCK, "the header of a member")) != ZEROS:
        header = parsed(block, source.name)
        budget.member(source.name)
        if header.type in extensions.TYPES:
            extension.take(header, _extended(header, source, budget), source.name)
            continue
        member = _member(header, extension, source.name, budget)
        extension = extensions.Extension()
        body = _Body(source, member)
        yield member, body.pieces()
        body.finish()
    if extension.heard:
        raise BadArtefact(Code.TRUNCATED, source.name, "ends behind a header that speaks of a further member")
    _check_end(source)


def _extended(header: Header, source: Pull, budget: Budget) -> bytes:
    if header.size > budget.limits.header_bytes:
        message = f"an extended header has {header.size} bytes, more than {budget.limits.header_bytes}"
        raise BadArtefact(Code.METADATA_TOO_LARGE, source.name, message)
    body = source.exactly(header.size, "an extended header")
    source.exactly(-header.size % BLOCK, "the padding of an extended header")
    return body


def _member(header: Header, extension: extensions.Extension, archive: str, budget: Budget) -> Member:
    name = extension.path or extensions.decoded(header.name, archive)
    kind = _kind(header, name)
    target = extension.target or extensions.decoded(header.target, archive)
    size = _size(header, extension, kind, name)
    if size > budget.limits.file_bytes:
        message = f"declares {size} bytes, more than {budget.limits.file_bytes}"
        raise BadArtefact(Code.FILE_TOO_LARGE, name, message)
    is_link = kind in (MemberKind.SYMLINK, MemberKind.HARDLINK)
    return Member(name, kind, size, header.mode & 0o777, target if is_link else "")


def _kind(header: Header, name: str) -> MemberKind:
    if header.type in DEVICES:
        raise BadArtefact(Code.DEVICE_NODE, name, f"is {DEVICES[header.type]}; packages hold files alone")
    if header.type == SPARSE:
        raise BadArtefact(Code.SPARSE_FILE, name, "is a sparse file; pack it without --sparse")
    kind = KINDS.get(header.type)
    if kind is None:
        shown = printable(header.type.decode("latin-1"))
        raise BadArtefact(Code.UNSUPPORTED_MEMBER, name, f"is of the type {shown!r}, which is not extracted")
    if kind is MemberKind.FILE and name.endswith("/"):
        raise BadArtefact(Code.CONFLICTING_HEADERS, name, "is a file by its type and a folder by its name")
    return kind


def _size(header: Header, extension: extensions.Extension, kind: MemberKind, name: str) -> int:
    # A reader that heeds only one of two sizes sees other members than one that heeds the other: a way to
    # smuggle.
    if extension.size is not None and extension.size != header.size:
        message = f"has {header.size} bytes by its header and {extension.size} by its pax record"
        raise BadArtefact(Code.CONFLICTING_HEADERS, name, message)
    if kind is not MemberKind.FILE and header.size:
        message = f"is a {kind.value} and declares {header.size} bytes"
        raise BadArtefact(Code.CONFLICTING_HEADERS, name, message)
    return header.size


class _Body:
    """The content of one member within the stream."""

    def __init__(self, source: Pull, member: Member) -> None:
        self._source = source
        self._member = member
        self._left = member.size

    def pieces(self) -> Iterator[bytes]:
        while self._left:
            piece = self._source.some(min(self._left, CHUNK))
            if not piece:
                message = f"ends {self._left} bytes before its declared size; upload it again, whole"
                raise BadArtefact(Code.TRUNCATED, self._member.name, message)
            self._left -= len(piece)
            yield piece

    def finish(self) -> None:
        """Go past what was not read, and past the padding."""
        for _ in self.pieces():
            pass
        self._source.exactly(-self._member.size % BLOCK, f"the padding of {self._member.name}")


def _check_end(source: Pull) -> None:
    """Two blocks of zeros end a tar; writers may add more of them, and nothing else."""
    if source.exactly(BLOCK, "the two blocks of zeros at the end") != ZEROS:
        raise BadArtefact(Code.TRAILING_DATA, source.name, "other bytes follow the end of the tar")
    while piece := source.some(CHUNK):
        if piece.strip(b"\0"):
            message = "other bytes follow the end of the tar; remove them"
            raise BadArtefact(Code.TRAILING_DATA, source.name, message)
