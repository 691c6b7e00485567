"""The rules for names in archives, links' targets among them.

Invariants: a path that comes from here is relative, has no ``..``, and its parts are separated by ``/``. A
target that comes from here goes up only at its beginning and never above the root; because the folder of a
link is never itself reached through a link, no chain of such links leads out (each step up is from a real
folder below the root, each step after it goes down).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.limits import Limits
from controlplane.packaging.archives.members import MemberKind

DRIVE = re.compile(r"[A-Za-z]:")
# Control characters, and the signs that make a name look like another one when it is shown (UAX #9).
INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class NameRule:
    """How strict names are read: as strict as the strictest platform that the files may go to."""

    windows: bool
    """Refuse what means something else on Windows: backslashes, drives, dots and spaces at an end."""
    folding: bool
    """Take names as one that differ in case or in Unicode normalisation alone, as Windows and macOS do."""
    absolute_links: bool
    """A link may name a path from the root of the package, as it does in debs; it is made relative."""


PORTABLE = NameRule(windows=True, folding=True, absolute_links=False)
JAVA = NameRule(windows=True, folding=False, absolute_links=False)
"""Jars are read in place by Java; many hold ``META-INF/LICENSE`` beside ``META-INF/license/``."""
POSIX = NameRule(windows=False, folding=False, absolute_links=True)
r"""Debs go to Linux alone; their files are named ``a\x2db.slice``, ``File::Spec.3pm`` or differ in case."""


def checked_path(name: str, rule: NameRule, limits: Limits) -> str:
    """The path below the root that ``name`` means, empty for the root itself; raise what is wrong with it."""
    _check_text(name, name, rule, limits)
    if name.startswith("/") or (rule.windows and (DRIVE.match(name) or name.startswith("\\"))):
        message = "is an absolute path; pack with paths relative to one folder"
        raise BadArtefact(Code.PATH_ESCAPES, name, message)
    parts = _parts(name, rule)
    for part in parts:
        _check_part(part, name, rule, limits)
    if len(parts) > limits.path_depth:
        raise BadArtefact(Code.PATH_TOO_DEEP, name, f"is deeper than {limits.path_depth} folders")
    return "/".join(parts)


def _parts(name: str, rule: NameRule) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    everywhere = name.replace("\\", "/").split("/") if rule.windows else parts
    if ".." in everywhere:
        raise BadArtefact(Code.PATH_ESCAPES, name, "holds '..'; pack with paths relative to one folder")
    if rule.windows and "\\" in name:
        raise BadArtefact(Code.NAME_NOT_PORTABLE, name, "holds a backslash; separate folders by '/'")
    return parts


def _check_text(text: str, name: str, rule: NameRule, limits: Limits) -> None:
    if "\0" in text:
        message = "holds a NUL, where some readers cut the name and others do not"
        raise BadArtefact(Code.NUL_IN_NAME, name, message)
    if SURROGATE.search(text):
        raise BadArtefact(Code.NAME_NOT_PORTABLE, name, "is not UTF-8")
    if INVISIBLE.search(text):
        raise BadArtefact(Code.NAME_NOT_PORTABLE, name, "holds control characters")
    if len(text.encode()) > limits.name_bytes:
        raise BadArtefact(Code.NAME_TOO_LONG, name, f"is longer than {limits.name_bytes} bytes")


def _check_part(part: str, name: str, rule: NameRule, limits: Limits) -> None:
    if len(part.encode()) > limits.part_bytes:
        raise BadArtefact(Code.NAME_TOO_LONG, name, f"a part of it is longer than {limits.part_bytes} bytes")
    if not rule.windows:
        return
    if DRIVE.match(part):
        raise BadArtefact(Code.NAME_NOT_PORTABLE, name, "a part of it is a drive on Windows")
    if part.endswith((".", " ")):
        message = "a part of it ends with a dot or space, which Windows drops"
        raise BadArtefact(Code.NAME_NOT_PORTABLE, name, message)


def checked_target(path: str, target: str, rule: NameRule, limits: Limits) -> str:
    """The target of the symbolic link at ``path``, relative to its folder.

    ``LINK_ESCAPES`` where it leads out.
    """
    if not target:
        raise BadArtefact(Code.MALFORMED, path, "is a link without a target")
    _check_text(target, path, rule, limits)
    if rule.windows and ("\\" in target or DRIVE.match(target)):
        raise BadArtefact(Code.LINK_ESCAPES, path, f"links to {printable(target)!r}, a path of Windows")
    if target.startswith("/"):
        if not rule.absolute_links:
            raise BadArtefact(Code.LINK_ESCAPES, path, f"links to the absolute path {printable(target)!r}")
        target = "../" * path.count("/") + target.lstrip("/")
    parts = [part for part in target.split("/") if part not in ("", ".")]
    _check_climb(path, target, parts)
    return "/".join(parts) or "."


def _check_climb(path: str, target: str, parts: list[str]) -> None:
    climb = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    if climb > path.count("/"):
        raise BadArtefact(Code.LINK_ESCAPES, path, f"links to {printable(target)!r}, above the root")
    if ".." in parts[climb:]:
        raise BadArtefact(
            Code.LINK_ESCAPES,
            path,
            f"links to {printable(target)!r}, up again after it went down: that may lead out through another "
            "link; link straight to the target",
        )


class Claims:
    """Which paths an archive has spoken for: none twice, and none below a link or a file."""

    def __init__(self, rule: NameRule) -> None:
        self._rule = rule
        self._taken: dict[str, tuple[str, MemberKind]] = {}
        self._folders = {""}

    def claim(self, path: str, kind: MemberKind) -> None:
        """Take ``path`` and the folders above.

        Raise ``DUPLICATE_ENTRY`` or ``LINK_IN_PATH``. Folders may recur.
        """
        if kind is MemberKind.FOLDER:
            self._folder(path, path)
            return
        self._folder(path.rpartition("/")[0], path)
        self._take(path, kind, path)

    def _folder(self, path: str, member: str) -> None:
        if path in self._folders:
            return
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            self._take("/".join(parts[:count]), MemberKind.FOLDER, member)
        self._folders.add(path)

    def _take(self, path: str, kind: MemberKind, member: str) -> None:
        key = self._key(path)
        taken = self._taken.get(key)
        if taken is None:
            self._taken[key] = (path, kind)
        elif kind is not MemberKind.FOLDER or taken != (path, kind):
            raise _conflict(taken, path, kind, member)

    def _key(self, path: str) -> str:
        if not self._rule.folding:
            return path
        if path.isascii():
            return path.lower()
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _conflict(taken: tuple[str, MemberKind], path: str, kind: MemberKind, member: str) -> BadArtefact:
    earlier, earlier_kind = taken
    if kind is MemberKind.FOLDER and earlier_kind is MemberKind.SYMLINK:
        message = f"leads through the symbolic link {printable(earlier)!r} of the same archive"
        return BadArtefact(Code.LINK_IN_PATH, member, message)
    alike = "" if earlier == path else ", which is the same name on Windows or macOS"
    message = f"the archive has the {earlier_kind.value} {printable(earlier)!r} already{alike}"
    return BadArtefact(Code.DUPLICATE_ENTRY, member, message)
