"""Headers that speak of the member after them: pax records, and GNU's long names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.tar.headers import Header

PAX, PAX_GLOBAL, LONG_NAME, LONG_TARGET = b"x", b"g", b"L", b"K"
TYPES = (PAX, PAX_GLOBAL, LONG_NAME, LONG_TARGET)
LENGTH = re.compile(rb"[1-9][0-9]{0,7} ")
SIZE = re.compile(r"[0-9]{1,18}")
MEANT = ("path", "linkpath", "size")
"""The records that change what is extracted; all others are times, owners, attributes and remarks."""


@dataclass(slots=True)
class Extension:
    """What has been said of the next member; empty where nothing was."""

    path: str = ""
    target: str = ""
    size: int | None = None
    heard: bool = False
    """Whether a header spoke of a member that has not come yet."""

    def take(self, header: Header, body: bytes, archive: str) -> None:
        """Read one header's body; raise what is wrong with it."""
        if header.type == PAX_GLOBAL:
            _check_global(body, archive)
            return
        self.heard = True
        if header.type == LONG_NAME:
            self.path = _once(self.path, _long(body, archive), archive)
        elif header.type == LONG_TARGET:
            self.target = _once(self.target, _long(body, archive), archive)
        else:
            self._take_pax(dict(records(body, archive)), archive)

    def _take_pax(self, known: dict[str, str], archive: str) -> None:
        if "path" in known:
            self.path = _once(self.path, known["path"], archive)
        if "linkpath" in known:
            self.target = _once(self.target, known["linkpath"], archive)
        if "size" in known:
            if self.size is not None or not SIZE.fullmatch(known["size"]):
                shown = printable(known["size"])
                message = f"the pax record size={shown} is no size, or a second one"
                raise BadArtefact(Code.MALFORMED, archive, message)
            self.size = int(known["size"])


def _once(before: str, now: str, archive: str) -> str:
    if before or not now:
        message = f"a member is named twice, or not at all, by its extended headers ({printable(now)!r})"
        raise BadArtefact(Code.CONFLICTING_HEADERS, archive, message)
    return now


def _long(body: bytes, archive: str) -> str:
    text = body.removesuffix(b"\0")
    if b"\0" in text:
        shown = text.decode("utf-8", "replace")
        raise BadArtefact(Code.NUL_IN_NAME, shown, "a long name goes on behind a NUL")
    return decoded(text, archive)


def decoded(name: bytes, archive: str) -> str:
    """A name as text; ``NAME_NOT_PORTABLE`` where it is not UTF-8."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        shown = printable(name.decode("utf-8", "backslashreplace"))
        message = f"the name {shown!r} of a member is not UTF-8"
        raise BadArtefact(Code.NAME_NOT_PORTABLE, archive, message) from None


def _check_global(body: bytes, archive: str) -> None:
    for key, _ in records(body, archive):
        if key in MEANT:
            message = f"a global header sets {key} for all members, which readers understand differently"
            raise BadArtefact(Code.CONFLICTING_HEADERS, archive, message)


def records(body: bytes, archive: str) -> Iterator[tuple[str, str]]:
    """The records ``<length> <key>=<value>\\n`` of a pax header.

    ``MALFORMED`` where the lengths do not fit.
    """
    seen: set[str] = set()
    at = 0
    while at < len(body):
        key, value, at = _record(body, at, archive)
        if key in seen:
            raise BadArtefact(Code.DUPLICATE_FIELD, archive, f"a pax header says {printable(key)!r} twice")
        seen.add(key)
        if key.startswith("GNU.sparse."):
            raise BadArtefact(Code.SPARSE_FILE, archive, "holds a sparse file; pack it without --sparse")
        yield key, value


def _record(body: bytes, at: int, archive: str) -> tuple[str, str, int]:
    prefix = LENGTH.match(body, at)
    end = at + int(prefix.group()) if prefix else 0
    if prefix is None or end > len(body) or end <= prefix.end() or body[end - 1 : end] != b"\n":
        raise BadArtefact(Code.MALFORMED, archive, f"a pax record at byte {at} has a wrong length")
    raw_key, equals, raw_value = body[prefix.end() : end - 1].partition(b"=")
    key = decoded(raw_key, archive)
    if not key or not equals:
        raise BadArtefact(Code.MALFORMED, archive, f"a pax record at byte {at} has no key")
    if key not in MEANT:
        # Attributes may be binary; nobody reads them here.
        return key, "", end
    value = decoded(raw_value, archive)
    if "\0" in value:
        raise BadArtefact(Code.NUL_IN_NAME, value, f"the pax record {key} holds a NUL")
    return key, value, end
