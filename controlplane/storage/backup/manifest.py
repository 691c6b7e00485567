"""What a backup says of itself: the first member of its archive, in JSON.

A reader decides by it alone whether it can put the backup back, before it reads the rest.
Everything in it is checked: whoever can send a file can send any file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from controlplane.storage.backup.errors import BackupError, DamagedBackup
from controlplane.trust.layout import DATABASE

FORMAT = 1
"""Raised when a program that does not know of it could not put a backup back rightly."""

NAME = "manifest.json"
MAX_BYTES = 4 * 1024 * 1024
MAX_ENTRIES = 10_000
MAX_SMALL_BYTES = 64 * 1024
"""Of everything but the database: keys and certificates."""

# The only names there are: none of them can point out of the data folder.
_NAMES = re.compile(
    re.escape(DATABASE)
    + r"|trust/[a-z0-9-]{1,40}\.(?:key|pem)"
    + r"|identities/(?:operator|integrator)-[a-z0-9][a-z0-9-]{0,62}/(?:key|cert|ca)\.pem"
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHORT = re.compile(r"[0-9A-Za-z.+_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its name in the data folder, its size in bytes, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup.

    ``product`` is the version of the program that took it, ``schema`` the database's
    revision. ``roots`` are the SHA-256 of the roots' certificates, by name: what a backup
    without keys must be put beside.
    """

    product: str
    schema: str
    time: datetime
    roots: Mapping[str, str]
    entries: tuple[Entry, ...]

    @property
    def has_keys(self) -> bool:
        """Whether it has more than the database."""
        return any(entry.name != DATABASE for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def write(self) -> bytes:
        """Return its JSON."""
        content = {
            "format": FORMAT,
            "product": self.product,
            "schema": self.schema,
            "time": self.time.isoformat(),
            "roots": dict(self.roots),
            "files": [
                {"name": entry.name, "size": entry.size, "sha256": entry.digest} for entry in self.entries
            ],
        }
        return json.dumps(content, indent=1).encode() + b"\n"


def is_name(name: str) -> bool:
    """Return whether a backup may hold a file of this name."""
    return _NAMES.fullmatch(name) is not None


def read(path: Path, text: bytes) -> Manifest:
    """Read the manifest of the backup ``path``.

    Raises ``DamagedBackup``, and ``BackupError`` for one of a newer format.
    """
    try:
        content = json.loads(text)
        newer = _whole(content["format"]) > FORMAT
        if not newer:
            return _manifest(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedBackup(path, f"its {NAME} cannot be read ({type(error).__name__}: {error})") from error
    raise BackupError(
        f"{path}: this backup has format {content['format']}, this program knows up to {FORMAT}: "
        "install the newer fleetwright that took it"
    )


def _manifest(content: Mapping[str, Any]) -> Manifest:
    entries = tuple(_entry(item) for item in _list(content["files"]))
    names = [entry.name for entry in entries]
    if names.count(DATABASE) != 1 or len(set(names)) < len(names):
        raise ValueError("a database once, and every other file at most once, are wanted")
    roots = {_text(_SHORT, name): _text(_DIGEST, digest) for name, digest in content["roots"].items()}
    time = datetime.fromisoformat(content["time"])
    if time.tzinfo is None:
        raise ValueError("time: has no zone")
    return Manifest(_text(_SHORT, content["product"]), _text(_SHORT, content["schema"]), time, roots, entries)


def _entry(item: Mapping[str, Any]) -> Entry:
    entry = Entry(_text(_NAMES, item["name"]), _whole(item["size"]), _text(_DIGEST, item["sha256"]))
    if entry.name != DATABASE and entry.size > MAX_SMALL_BYTES:
        raise ValueError(f"{entry.name}: {entry.size} bytes are more than a key or a certificate has")
    return entry


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise ValueError(f"files: a list of at most {MAX_ENTRIES} is wanted")
    return value


def _text(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{str(value)[:80]!r} is not allowed")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:80]!r} is not a whole number from 0")
    return value
