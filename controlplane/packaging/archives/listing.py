"""Facts and lists of files as JSON, between stages and across the border of the isolated process.

What a job wrote is read back as untrusted: it read bytes that others made. Every shape is checked, and the
one error is ``ValueError``, whose text names the entry and the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from controlplane.packaging.archives.limits import DEFAULT, MIB
from controlplane.packaging.records import ArtefactFacts, ArtefactType, FileEntry

LIST_BYTES = 96 * MIB
"""A list of 100,000 files whose paths have 600 bytes each."""
DETAILS = 100
"""Details of an artefact; the formats that are read have a dozen."""
TEXT = 512 * 1024
"""Characters of one detail: the tags of a wheel may come to some hundred thousand."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"(?:[0-9a-f]{40})?")
_ENTRY = {"path": str, "size": int, "sha256": str, "mode": int, "link_target": str, "sha1": str}
_FACTS = ("type", "name", "version", "architecture", "os_family", "details")


def facts_to_json(facts: ArtefactFacts) -> dict[str, Any]:
    """Return facts as an object of JSON."""
    return {**asdict(facts), "type": facts.type.value, "details": dict(facts.details)}


def facts_from_json(value: object) -> ArtefactFacts:
    """Return the facts that ``facts_to_json`` wrote. Raises ``ValueError`` for anything else."""
    if not isinstance(value, dict) or set(value) != set(_FACTS):
        raise ValueError("facts: not an object with the fields of facts")
    details = value["details"]
    if not isinstance(details, dict) or len(details) > DETAILS:
        raise ValueError(f"facts.details: not an object of at most {DETAILS} fields")
    plain = {name: value[name] for name in _FACTS[:-1]} | details
    for name, text in plain.items():
        if not isinstance(text, str) or len(text) > TEXT or len(name) > TEXT or "\0" in f"{name}{text}":
            raise ValueError(f"facts.{name[:64]}: not a text of at most {TEXT} characters without NUL")
        f"{name}{text}".encode()  # half of a surrogate pair is a ValueError too
    kind = ArtefactType(value["type"])
    texts = {name: value[name] for name in _FACTS[1:-1]}
    return ArtefactFacts(type=kind, details=details, **texts)


def files_to_json(files: Sequence[FileEntry]) -> bytes:
    """Return a list of files as JSON; the same list gives the same bytes."""
    return json.dumps([asdict(one) for one in files], sort_keys=True, separators=(",", ":")).encode()


def files_from_json(data: bytes) -> list[FileEntry]:
    """Return the files that ``files_to_json`` wrote. Raises ``ValueError`` for anything else."""
    if len(data) > LIST_BYTES:
        raise ValueError(f"files: {len(data)} bytes; at most {LIST_BYTES}")
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("files: nested too deeply") from None
    if not isinstance(found, list) or len(found) > DEFAULT.members:
        raise ValueError(f"files: not a list of at most {DEFAULT.members} entries")
    entries = [_entry(one, f"files[{number}]") for number, one in enumerate(found)]
    if len({one.path for one in entries}) != len(entries):
        raise ValueError("files: a path stands there twice")
    return entries


def _entry(value: object, where: str) -> FileEntry:
    if not isinstance(value, dict) or set(value) != set(_ENTRY):
        raise ValueError(f"{where}: not an object with the fields of a file")
    for name, kind in _ENTRY.items():
        if type(value[name]) is not kind:
            raise ValueError(f"{where}.{name}: not a {kind.__name__}")
    entry = FileEntry(**value)
    _check_path(entry.path, f"{where}.path")
    if not _SHA256.fullmatch(entry.sha256) or not _SHA1.fullmatch(entry.sha1):
        raise ValueError(f"{where}: a digest is not in lower-case hexadecimal")
    if not 0 <= entry.size <= DEFAULT.total_bytes or not 0 <= entry.mode <= 0o777:
        raise ValueError(f"{where}: its size or mode cannot be")
    if len(entry.link_target) > DEFAULT.name_bytes:
        raise ValueError(f"{where}.link_target: longer than {DEFAULT.name_bytes} characters")
    return entry


def _check_path(path: str, where: str) -> None:
    parts = path.split("/")
    path.encode()
    if not path or len(path) > DEFAULT.name_bytes or "\0" in path or {"", ".", ".."} & set(parts):
        raise ValueError(f"{where}: no path below the root")
