"""What a record says of each package, in the short form that matching reads by the thousand.

A scan asks for the entries of every component and needs the whole record of the few that match. So an import
writes beside the record, for each package, its ranges and versions alone: JSON, compressed where it is long.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from controlplane.packaging.advisories.names import base, normalise
from controlplane.packaging.advisories.osv import COMPARED
from controlplane.packaging.advisories.records import EVENTS, Affected, Event, Range, Rating, Record, Row
from controlplane.packaging.advisories.versions import spelling

COMPRESSED_ABOVE = 1_024
"""Bytes of an entry that is compressed: shorter ones are read faster than they are unpacked."""

MAX_ENTRY = 64 * 1024 * 1024
"""Bytes of an unpacked entry: above what the limits of a record allow, so that nothing stored is refused."""

_DIGITS = {kind: str(number) for number, kind in enumerate(EVENTS)}
_INTRODUCED, _FIXED = _DIGITS["introduced"], _DIGITS["fixed"]
_KINDS = {digit: kind for kind, digit in _DIGITS.items()}


_BROKEN = (ValueError, TypeError, IndexError, KeyError, zlib.error, RecursionError)


class EntryError(ValueError):
    """An entry in the store is not what an import wrote there."""


def of_record(record: Record, ecosystem: str) -> list[Row]:
    """Return the entries of a record for one base ecosystem; none for a record that was withdrawn.

    What belongs to another ecosystem is left to the import of that one.
    """
    if record.withdrawn is not None:
        return []
    blocks: dict[tuple[str, str], list[Affected]] = {}
    for affected in record.affected:
        if base(affected.ecosystem) == ecosystem:
            key = (affected.ecosystem, normalise(ecosystem, affected.name))
            blocks.setdefault(key, []).append(affected)
    return [Row(release, name, record.id, found) for (release, name), found in blocks.items()]


def encode(row: Row) -> bytes:
    """Return what is kept of a row's blocks. Versions are kept by their one spelling."""
    blocks = [
        [
            [[one.type, *_flat(one.events)] for one in block.ranges],
            list(dict.fromkeys(spelling(row.ecosystem, version) for version in block.versions)),
        ]
        for block in row.blocks
    ]
    text = json.dumps(_distinct(blocks), ensure_ascii=False, separators=(",", ":")).encode()
    return zlib.compress(text, 6) if len(text) > COMPRESSED_ABOVE else text


class Entry(NamedTuple):
    """What is kept of a record about a package."""

    advisory: str
    """Id of the record."""
    fix: str
    """Where the record says nothing but that all versions before one are affected, that one; else ""."""
    stored: Any
    """Its blocks, for ``blocks_of``."""


def entry(ecosystem: str, name: str, advisory: str, stored: bytes) -> Entry:
    """Return an entry; its blocks are made of it when they are needed. Raises ``EntryError``."""
    try:
        found = _read(stored if stored[:1] == b"[" else _unpack(stored))
        return Entry(advisory, _only_fix(found), found)
    except _BROKEN as error:
        raise _unreadable(ecosystem, name, error) from None


def blocks_of(ecosystem: str, name: str, one: Entry) -> list[Affected]:
    """Return the blocks of an entry; their ratings are in the record alone. Raises ``EntryError``."""
    try:
        return [
            Affected(ecosystem, name, ranges=[_range(part) for part in ranges], versions=versions)
            for ranges, versions in one.stored
        ]
    except _BROKEN as error:
        raise _unreadable(ecosystem, name, error) from None


def decode(ecosystem: str, name: str, stored: bytes) -> list[Affected]:
    """Return the blocks of a stored entry (``blocks_of``). Raises ``EntryError``."""
    return blocks_of(ecosystem, name, entry(ecosystem, name, "", stored))


def _only_fix(blocks: Any) -> str:
    if len(blocks) == 1:
        ranges, versions = blocks[0]
        if not versions and len(ranges) == 1 and len(ranges[0]) == 5:
            kind, begin, first, end, version = ranges[0]
            if first == "0" and begin == _INTRODUCED and end == _FIXED and kind in COMPARED:
                return str(version)
    return ""


def _unreadable(ecosystem: str, name: str, error: Exception) -> EntryError:
    return EntryError(f"the entry of {name} in {ecosystem} cannot be read: {error}")


def encode_brief(record: Record) -> bytes:
    """Return what a scan needs of a record beside its entries: other names, and severities."""
    rated = [
        [one.ecosystem, one.name, one.ratings, one.word] for one in record.affected if one.ratings or one.word
    ]
    told = [record.aliases, record.upstream, record.ratings, record.word, _distinct(rated)]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def decode_brief(identifier: str, modified: int, withdrawn: int | None, stored: bytes) -> Record:
    """Return the record of a brief: entries of ``affected`` are there for their severities alone.

    Raises ``EntryError``.
    """
    try:
        aliases, upstream, ratings, word, rated = _read(stored)
        return Record(
            id=identifier,
            modified=modified,
            withdrawn=withdrawn,
            aliases=aliases,
            upstream=upstream,
            ratings=[Rating(*one) for one in ratings],
            word=word,
            affected=[
                Affected(ecosystem, name, ratings=[Rating(*one) for one in own], word=said)
                for ecosystem, name, own, said in rated
            ],
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise EntryError(f"what is kept of {identifier} cannot be read: {error}") from None


def _read(stored: bytes) -> Any:
    # json.loads looks at encodings and white space, which takes longer than these short texts do.
    text = stored.decode()
    value, end = _parse(text)
    if end != len(text):
        raise ValueError("there is more behind its end")
    return value


_parse = json.JSONDecoder().raw_decode


def _unpack(stored: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(stored, MAX_ENTRY)
    if not unpacker.eof:
        raise ValueError("it is cut or too long")
    return text


def _flat(events: Iterable[Event]) -> list[str]:
    return [part for event in events for part in (_DIGITS[event.kind], event.version)]


def _range(stored: Sequence[str]) -> Range:
    if len(stored) % 2 == 0:
        raise ValueError("an event has no version")
    events = zip(map(_KINDS.__getitem__, stored[1::2]), stored[2::2], strict=True)
    return Range(stored[0], list(map(Event._make, events)))


def _distinct(blocks: Sequence[Sequence[object]]) -> list[Sequence[object]]:
    # Records of distributions repeat a block for each module or architecture.
    return list({json.dumps(block): block for block in blocks}.values())
