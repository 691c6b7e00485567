"""Reading documents of others strictly: each field by its type and limits, each path so that it stays inside.

What is wrong is a ``ManifestError`` that names the field by its place ("install[2].target").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

MAX_PATH: Final = 1_024
"""Characters of a path: what every file system that packages are installed on takes."""
MAX_PART: Final = 255
"""Bytes of one part of a path."""
MAX_SHOWN: Final = 64
"""Characters of a wrong value that an error shows."""

# Control characters (also those of C1), and halves of surrogate pairs, which no file system can hold.
_UNPRINTABLE: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")

Read = TypeVar("Read")


class ManifestError(ValueError):
    """A document is not what it should be; ``field`` is the place, ``problem`` says what is wrong with it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class Fields:
    """The fields of one object, each read once; ``finish`` refuses what was not read."""

    def __init__(self, document: Mapping[str, Any], name: str = "") -> None:
        self.name = name
        self._document = document
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._document

    def finish(self) -> None:
        """Raise ``ManifestError`` for a field that nothing has asked for."""
        unknown = sorted(set(self._document) - self._read)
        if unknown:
            raise ManifestError(self._at(_shown(unknown[0])), "is no field that is known here")

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """Return a text that is not empty and matches ``pattern`` as a whole."""
        value = self._take(name, str)
        if not value or (pattern is not None and not pattern.fullmatch(value)):
            raise ManifestError(self._at(name), f"cannot be {_shown(value)!r}")
        return str(value)

    def free_text(self, name: str, longest: int) -> str:
        """Return a text without control characters; it may be empty."""
        return _printable(self._take(name, str), self._at(name), longest)

    def texts(self, name: str, fewest: int, most: int, longest: int) -> tuple[str, ...]:
        """Return a list of texts that are not empty and have no control characters."""
        values = self._list(name, fewest, most)
        for number, value in enumerate(values):
            if not isinstance(value, str) or not value:
                raise ManifestError(f"{self._at(name)}[{number}]", "is not a text, or an empty one")
            _printable(value, f"{self._at(name)}[{number}]", longest)
        return tuple(values)

    def choice(self, name: str, choices: Collection[str]) -> str:
        """Return one of ``choices``."""
        value = self._take(name, str)
        if value not in choices:
            raise ManifestError(self._at(name), f"is {_shown(value)!r}, none of {', '.join(sorted(choices))}")
        return str(value)

    def number(self, name: str, least: int, most: int) -> int:
        """Return an integer within limits."""
        value = self._take(name, int)
        if not least <= value <= most:
            raise ManifestError(self._at(name), f"is not from {least} to {most}")
        return int(value)

    def one_of(self, name: str, choices: Sequence[int]) -> int:
        """Return one of a few integers."""
        value = self._take(name, int)
        if value not in choices:
            raise ManifestError(self._at(name), f"is none of {', '.join(map(str, choices))}")
        return int(value)

    def path(self, name: str, *, root: bool = False) -> str:
        """Return a relative path that stays below its root; "." for the root itself if ``root``."""
        value = self._take(name, str)
        return "." if root and value == "." else normal_path(value, self._at(name))

    def objects(self, name: str, fewest: int, most: int) -> list[Fields]:
        """Return a list of objects; each must be read as a whole by ``items`` or ``finish``."""
        found = []
        for number, value in enumerate(self._list(name, fewest, most)):
            if not isinstance(value, dict):
                raise ManifestError(f"{self._at(name)}[{number}]", "is not an object")
            found.append(Fields(value, f"{self._at(name)}[{number}]"))
        return found

    def items(self, name: str, fewest: int, most: int, read: Callable[[Fields], Read]) -> tuple[Read, ...]:
        """Return what ``read`` makes of each object of a list, and refuse what it leaves unread."""
        return tuple(_whole(one, read) for one in self.objects(name, fewest, most))

    def read(self, name: str, read: Callable[[Fields], Read]) -> Read:
        """Return what ``read`` makes of an object, and refuse what it leaves unread."""
        return _whole(Fields(self._take(name, dict), self._at(name)), read)

    def _list(self, name: str, fewest: int, most: int) -> list[Any]:
        value = self._take(name, list)
        if not fewest <= len(value) <= most:
            raise ManifestError(self._at(name), f"has {len(value)} entries, not {fewest} to {most}")
        return list(value)

    def _take(self, name: str, kind: type) -> Any:
        self._read.add(name)
        if name not in self._document:
            raise ManifestError(self._at(name), "is missing")
        value = self._document[name]
        # For Python a truth value is a number; for this it is none.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ManifestError(self._at(name), f"is not {_KINDS[kind]}")
        return value

    def _at(self, name: str) -> str:
        return f"{self.name}.{name}" if self.name else name


_KINDS: Final = {str: "a text", int: "an integer", list: "a list", dict: "an object"}


def _whole(fields: Fields, read: Callable[[Fields], Read]) -> Read:
    found = read(fields)
    fields.finish()
    return found


def _shown(value: str) -> str:
    return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"


def _printable(value: str, name: str, longest: int) -> str:
    if len(value) > longest:
        raise ManifestError(name, f"has {len(value)} characters; at most {longest} are allowed")
    if _UNPRINTABLE.search(value):
        raise ManifestError(name, "has a control character or half of a surrogate pair")
    return value


def normal_path(path: str, name: str) -> str:
    """Return ``path`` if it is relative, in its shortest form, and stays below its root on every system.

    Raises ``ManifestError``: for "..", ".", empty parts, a leading "/" or drive, a backslash, control
    characters, and what is too long.
    """
    _printable(path, name, MAX_PATH)
    parts = path.split("/")
    if path.startswith("/") or _DRIVE.match(path) or "\\" in path:
        raise ManifestError(name, f"{_shown(path)!r} is not relative, or has a drive or a backslash")
    if not all(part not in ("", ".", "..") for part in parts):
        raise ManifestError(name, f"{_shown(path)!r} has an empty part, '.' or '..'")
    if max(len(part.encode()) for part in parts) > MAX_PART:
        raise ManifestError(name, f"{_shown(path)!r} has a part of more than {MAX_PART} bytes")
    return path


def unique_paths(paths: Sequence[str], name: str) -> None:
    """Raise ``ManifestError`` where a path occurs twice, or would lie below another file or link."""
    known = set(paths)
    if len(known) != len(paths):
        raise ManifestError(name, "have a path that occurs twice")
    for path in paths:
        place = path.rfind("/")
        while place > 0:
            if path[:place] in known:
                raise ManifestError(
                    name, f"have {_shown(path[:place])!r} as a file and as a folder of {_shown(path)!r}"
                )
            place = path.rfind("/", 0, place)


def check_links(links: Mapping[str, str], name: str) -> None:
    """Raise ``ManifestError`` for a link that could lead out of its tree, alone or through others.

    Its target begins with no more ".." than its own folder is deep and has none later. The folder of a link
    is a real one (``unique_paths``), so that ".." means there what it says; after that it only goes down,
    through folders, or through links for which the same holds.
    """
    for path, target in links.items():
        parts = target.split("/")
        ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
        rest = "/".join(parts[ups:])
        if ups > path.count("/"):
            raise ManifestError(
                name, f"have a link {_shown(path)!r} to {_shown(target)!r}, out of the package"
            )
        if rest:
            normal_path(rest, f"{name}: the target of {_shown(path)!r},")
