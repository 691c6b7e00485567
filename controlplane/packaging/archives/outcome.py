"""What INTAKE learns of an artefact, in shapes that cross from the isolated process as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from controlplane.packaging.records import ArtefactFacts, ArtefactType, FileEntry


@dataclass(frozen=True, slots=True)
class NestedArchive:
    """An archive within the artefact. What is not entered nobody has looked into: the reason is said."""

    path: str
    """Among the artefact's files, or with a number before it among those of an entered archive."""
    format: str
    """"zip", "tar", "tar.gz", "ar", "cab", …"""
    size: int
    sha256: str
    depth: int
    """1 for an archive among the artefact's own files."""
    folder: str = ""
    """Where it was extracted, below ``nested_into``; empty where it was not entered."""
    reason: str = ""
    """Why it was not entered."""
    files: Sequence[FileEntry] = ()
    """Of an entered archive: paths begin with ``folder``."""


@dataclass(frozen=True, slots=True)
class Intake:
    """An artefact that was read to the end, and found to be what it says."""

    declared_name: str
    size: int
    sha256: str
    sha512: str
    type: ArtefactType
    facts: ArtefactFacts
    files: Sequence[FileEntry]
    """Files and links on disk, sorted by path; a deb's begin with "control/" and "data/"."""
    nested: Sequence[NestedArchive] = ()

    def as_json(self) -> str:
        """The outcome as a text that ``from_json`` reads; the same for the same artefact."""
        return json.dumps(asdict(self), default=_plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Intake:
        """The outcome that ``as_json`` wrote; ValueError, KeyError or TypeError for another text."""
        found: dict[str, Any] = json.loads(text)
        facts = dict(found["facts"], type=ArtefactType(found["facts"]["type"]))
        nested = [NestedArchive(**dict(one, files=_entries(one["files"]))) for one in found["nested"]]
        return cls(
            **dict(
                found,
                type=ArtefactType(found["type"]),
                facts=ArtefactFacts(**facts),
                files=_entries(found["files"]),
                nested=nested,
            )
        )


def _entries(found: Sequence[Mapping[str, Any]]) -> list[FileEntry]:
    return [FileEntry(**one) for one in found]


def _plain(value: object) -> str:
    if isinstance(value, ArtefactType):
        return value.value
    raise TypeError(f"{type(value).__name__} has no form in JSON")
