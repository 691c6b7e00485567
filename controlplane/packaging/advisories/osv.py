"""OSV records (ossf.github.io/osv-schema), read from bytes that nobody vouches for.

Only what matching, severity and merging need is kept. Everything that is read has a bound; what breaks the
schema is an error that names the field. What is merely odd (a range of commits, events that begin nowhere) is
kept or noted, for ``matching`` to say what it makes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from controlplane.clock import to_micros
from controlplane.packaging.advisories.records import EVENTS, Affected, Event, Range, Rating, Record

MAX_RECORD = 8 * 1024 * 1024
"""Bytes of a record; the largest that are published, of kernels and browsers, have a tenth of it."""

MAX_AFFECTED = 20_000
MAX_RANGES = 1_000
MAX_EVENTS = 10_000
MAX_VERSIONS = 100_000
MAX_IDS = 10_000
"""Aliases, related or upstream ids of one record."""
MAX_RATINGS = 50
MAX_TEXT = 512
"""Characters of a name, a version, a purl or a vector."""

COMPARED = ("SEMVER", "ECOSYSTEM")
"""Types of ranges whose events are versions."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,126}[A-Za-z0-9]")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

T = TypeVar("T")


class RecordError(ValueError):
    """Bytes are no OSV record; the message names the field and what is wrong with it."""


def parse(content: bytes) -> Record:
    """Return the record that the bytes are. Raises ``RecordError``."""
    data = _object(_decode(content), "the record")
    identifier = _id(data.get("id"), "id")
    published = data.get("published")
    withdrawn = data.get("withdrawn")
    notes: list[str] = []
    affected = _list(data, "affected", MAX_AFFECTED, lambda item: _affected(item, notes))
    return Record(
        id=identifier,
        modified=_time(data.get("modified"), "modified"),
        published=None if published is None else _time(published, "published"),
        withdrawn=None if withdrawn is None else _time(withdrawn, "withdrawn"),
        aliases=_ids(data, "aliases", identifier, notes),
        related=_ids(data, "related", identifier, notes),
        upstream=_ids(data, "upstream", identifier, notes),
        ratings=_ratings(data),
        word=_word(data) or _title_word(data.get("summary")),
        affected=tuple(one for one in affected if one.ecosystem),
        notes=tuple(dict.fromkeys(notes)),
    )


def _decode(content: bytes) -> object:
    if len(content) > MAX_RECORD:
        raise RecordError(f"the record has {len(content)} bytes; {MAX_RECORD} are allowed")
    try:
        return json.loads(content, parse_constant=_no_number)
    except RecursionError:
        raise RecordError("the record is nested too deep to be one") from None
    except ValueError as error:
        raise RecordError(f"the record is not JSON in UTF-8: {error}"[:200]) from None


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no number of JSON")


def _affected(item: object, notes: list[str]) -> Affected:
    data = _object(item, "it")
    package = data.get("package")
    if package is None:
        # Records of commits name a repository in their ranges and no package.
        notes.append("an entry of affected names no package and was skipped")
        return Affected(ecosystem="", name="")
    package = _object(package, "package")
    purl = package.get("purl")
    return Affected(
        ecosystem=_text(package.get("ecosystem"), "package.ecosystem"),
        name=_text(package.get("name"), "package.name"),
        purl="" if purl is None else _text(purl, "package.purl"),
        ranges=_list(data, "ranges", MAX_RANGES, lambda one: _range(one, notes)),
        versions=_list(data, "versions", MAX_VERSIONS, lambda one: _text(one, "it")),
        ratings=_ratings(data),
        word=_word(data),
    )


def _range(item: object, notes: list[str]) -> Range:
    data = _object(item, "it")
    kind = _text(data.get("type"), "type")
    if kind not in COMPARED:
        # Its events are commits, whose order is a repository's, or something that is not known yet.
        notes.append(f"a range of type {kind} was skipped: its events are no versions")
        return Range(kind, ())
    nested = _list(data, "events", MAX_EVENTS, _events)
    return Range(kind, tuple(event for events in nested for event in events))


def _events(item: object) -> tuple[Event, ...]:
    data = _object(item, "it")
    found = tuple(Event(kind, _text(data[kind], kind)) for kind in EVENTS if kind in data)
    if not found:
        raise RecordError(f"it has none of {', '.join(EVENTS)}")
    return found


def _ratings(data: dict[str, Any]) -> tuple[Rating, ...]:
    return _list(data, "severity", MAX_RATINGS, _rating)


def _rating(item: object) -> Rating:
    data = _object(item, "it")
    return Rating(_text(data.get("type"), "type"), _text(data.get("score"), "score"))


def _word(data: dict[str, Any]) -> str:
    """Return a database's own word for the severity; it is free-form, so what is no short text is none."""
    for place, field in (("database_specific", "severity"), ("ecosystem_specific", "severity"), _URGENCY):
        specific = data.get(place)
        word = specific.get(field) if isinstance(specific, dict) else None
        if isinstance(word, str) and 0 < len(word) <= MAX_TEXT and word.isprintable():
            return word
    return ""


def _title_word(summary: object) -> str:
    # Red Hat's advisories and those of its rebuilds say it in the title alone: "Important: bind security
    # update".
    found = _TITLE.match(summary) if isinstance(summary, str) else None
    return found[1] if found else ""


_TITLE = re.compile(r"(Critical|Important|Moderate|Low): ")
_URGENCY = ("ecosystem_specific", "urgency")  # Debian's


def _ids(data: dict[str, Any], field: str, own: str, notes: list[str]) -> tuple[str, ...]:
    # Published records have commas and spaces after ids; what is no id even so can lead to no record.
    found = [text.strip(" ,;") for text in _list(data, field, MAX_IDS, lambda item: _text(item, "it"))]
    notes += [f"{field} has {one[:80]!r}, which is no id" for one in found if not _ID.fullmatch(one)]
    return tuple(dict.fromkeys(one for one in found if one != own and _ID.fullmatch(one)))


def _list(data: dict[str, Any], field: str, limit: int, read: Callable[[Any], T]) -> tuple[T, ...]:
    items = data.get(field)
    if items is None:
        return ()
    if not isinstance(items, list):
        raise RecordError(f"{field}: is a {_kind(items)}, and must be a list")
    if len(items) > limit:
        raise RecordError(f"{field}: has {len(items)} entries; {limit} are allowed")
    found: list[T] = []
    try:
        for item in items:
            found.append(read(item))
    except RecordError as error:
        # "ranges[0].events[1]: ...": each level puts its own place before what failed below.
        inner = str(error).removeprefix("it ")
        joint = ": " if inner != str(error) else "."
        raise RecordError(f"{field}[{len(found)}]{joint}{inner}") from None
    return tuple(found)


def _object(item: object, what: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise RecordError(f"{what} is a {_kind(item)}, and must be an object")
    return item


def _text(item: object, field: str) -> str:
    if not isinstance(item, str):
        raise RecordError(_said(field, f"is a {_kind(item)}, and must be a text"))
    if not 0 < len(item) <= MAX_TEXT:
        raise RecordError(_said(field, f"has {len(item)} characters; 1 to {MAX_TEXT} are allowed"))
    if not item.isprintable():
        # Lone surrogates are not printable either: no database would take them.
        raise RecordError(_said(field, f"has control characters in it: {item[:80]!a}"))
    return item


def _id(item: object, field: str) -> str:
    text = _text(item, field)
    if _ID.fullmatch(text) is None:
        raise RecordError(_said(field, f"{text[:80]!r} is no id of a record"))
    return text


def _time(item: object, field: str) -> int:
    found = _TIME.fullmatch(_text(item, field))
    try:
        if found is None:
            raise ValueError
        day, hour, fraction, zone = found.groups()
        zone = "+00:00" if zone in "Zz" else zone
        moment = datetime.fromisoformat(f"{day}T{hour}.{(fraction or '0'):0<6}{zone}")
        return to_micros(moment.astimezone(UTC))
    except (ValueError, OverflowError):
        raise RecordError(f"{field}: {str(item)[:80]!r} is no instant of RFC 3339") from None


def _said(field: str, what: str) -> str:
    return f"it {what}" if field == "it" else f"{field}: {what}"


def _kind(item: object) -> str:
    return "missing value" if item is None else type(item).__name__
