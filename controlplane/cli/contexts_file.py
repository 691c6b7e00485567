"""The file of contexts: which servers a person knows, and as whom to call each of them.

It is TOML, to be written by ``fleetwright contexts`` or by hand:

    current = "prod"

    [contexts.prod]
    server = "fleet.example.org:7444"
    identity = "/srv/fleetwright/operator-night-shift"
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fleetwright.client import check_address
from fleetwright.errors import AddressError

from controlplane.cli.failures import CommandFailed, Exit
from controlplane.trust.files import make_folder, write_file

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Context:
    """One server and who calls it."""

    name: str
    server: str
    identity: Path

    @property
    def folder(self) -> Path:
        """The identity's folder, with ``~`` written out. Raises ``CommandFailed``."""
        return written_out(self.identity)


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the file says. Raises ``CommandFailed`` wherever it, or a name, is wrong."""

    path: Path
    known: Mapping[str, Context] = field(default_factory=dict)
    current: str = ""

    @classmethod
    def load(cls, path: Path) -> Contexts:
        """Read the file; one that is not there has no contexts."""
        try:
            with path.open("rb") as file:
                document = tomllib.load(file)
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise CommandFailed(f"{path}: {error.strerror}: let this user read it") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CommandFailed(f"{path}: {error}: mend the file, or remove it", Exit.USAGE) from None
        return _parse(path, document)

    def get(self, name: str) -> Context:
        """Return the context of this name."""
        if name in self.known:
            return self.known[name]
        close = get_close_matches(name, self.known, 1)
        if close:
            remedy = f"did you mean {close[0]}?"
        elif self.known:
            remedy = f"use one of {', '.join(sorted(self.known))}, or add it with `fleetwright contexts add`"
        else:
            remedy = "there are none yet: see `fleetwright contexts add --help`"
        raise CommandFailed(f"context {name!r} is not in {self.path}: {remedy}", Exit.NOT_FOUND)

    def with_context(self, context: Context, *, current: bool) -> Contexts:
        """Return the file with one more context, or another one of that name."""
        return Contexts(
            self.path, {**self.known, context.name: context}, context.name if current else self.current
        )

    def without(self, name: str) -> Contexts:
        """Return the file without a context; where it was the current one, none is."""
        gone = self.get(name).name
        left = {other: context for other, context in self.known.items() if other != gone}
        return Contexts(self.path, left, "" if self.current == gone else self.current)

    def using(self, name: str) -> Contexts:
        """Return the file with another current context."""
        return Contexts(self.path, self.known, self.get(name).name)

    def save(self) -> None:
        """Write the file in one step. Raises ``OSError``, and ``CommandFailed`` for what TOML cannot hold."""
        try:
            content = self._toml().encode()
        except UnicodeEncodeError:
            raise CommandFailed(
                f"{self.path}: it is UTF-8, and the name of an identity's folder is not: rename the folder",
                Exit.USAGE,
            ) from None
        target = self.path.resolve()  # a link stays a link
        make_folder(target.parent)
        write_file(target, content)

    def _toml(self) -> str:
        lines = ["# Written by `fleetwright contexts`."]
        if self.current:
            lines.append(f"current = {_string(self.current)}")
        for name, context in sorted(self.known.items()):
            lines += [
                "",
                f"[contexts.{_string(name)}]",
                f"server = {_string(context.server)}",
                f"identity = {_string(str(context.identity))}",
            ]
        return "\n".join(lines) + "\n"


def edit(path: Path, change: Callable[[Contexts], Contexts]) -> Contexts:
    """Change the file while nobody else does, and return what it has now.

    Raises ``CommandFailed``, ``OSError``, and what ``change`` raises; the file is as it was then.
    """
    change(Contexts.load(path))  # what is refused anyway makes no folder
    folder = path.resolve().parent
    make_folder(folder)
    # The folder is locked: the file itself is another one after each change.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        changed = change(Contexts.load(path))
        changed.save()
    finally:
        os.close(descriptor)
    return changed


def written_out(folder: Path) -> Path:
    """Return a folder with ``~`` written out; raises ``CommandFailed`` for a user who is not known."""
    try:
        return folder.expanduser()
    except RuntimeError:
        raise CommandFailed(
            f"{folder}: this user is not known here: write the folder out", Exit.USAGE
        ) from None


def check_name(name: str) -> str:
    """Return ``name`` where a context may have it; raises ``CommandFailed``."""
    if not _NAME.fullmatch(name):
        raise CommandFailed(
            f"context {name!r}: use 1 to 63 letters, digits, dots, hyphens and underscores, "
            "with a letter or digit first and last",
            Exit.USAGE,
        )
    return name


def _string(text: str) -> str:
    # A TOML basic string is a JSON string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _parse(path: Path, document: dict[str, Any]) -> Contexts:
    tables = document.pop("contexts", {})
    current = document.pop("current", "")
    if document:
        raise _wrong(
            path, f"unknown key {next(iter(document))!r}: only current and contexts stand at the top"
        )
    if not isinstance(current, str) or not isinstance(tables, dict):
        raise _wrong(path, "current must be a string, and contexts a table")
    known = {name: _context(path, name, entry) for name, entry in tables.items()}
    if current and current not in known:
        raise _wrong(
            path, f"current context {current!r} is not among contexts: name another one there, or none"
        )
    return Contexts(path, known, current)


def _context(path: Path, name: str, entry: Any) -> Context:
    if not isinstance(entry, dict) or entry.keys() != {"server", "identity"}:
        raise _wrong(path, f"contexts.{name}: server and identity are needed, and nothing else is known")
    server, identity = entry["server"], entry["identity"]
    if not isinstance(server, str) or not isinstance(identity, str):
        raise _wrong(path, f"contexts.{name}: server and identity must be strings")
    if "\0" in identity:
        raise _wrong(path, f"contexts.{name}: identity: no folder has a NUL character in its name")
    try:
        return Context(name, check_address(server), Path(identity))
    except AddressError as error:
        raise _wrong(path, f"contexts.{name}: {error}") from None


def _wrong(path: Path, text: str) -> CommandFailed:
    return CommandFailed(f"{path}: {text}", Exit.USAGE)
