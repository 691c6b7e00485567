"""JSON that others wrote: read strictly and with limits; and JSON of our own, always the same bytes for the
same value.

Strict means UTF-8, no name twice in an object, no NaN and no infinity, no half of a character. Every error is
a ``Malformed`` that names the document and the field.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fleetwright.verify.errors import Malformed

LONGEST_TEXT: Final = 4096
"""Characters in a text that is read out of a document, unless a field says otherwise."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")  # RFC 3339, UTC only
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def canonical(value: Any) -> bytes:
    """Return the one way in which ``value`` is written: names sorted, no spaces, UTF-8.

    Raises ``Malformed`` for what JSON cannot carry.
    """
    try:
        text = json.dumps(
            value,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
            check_circular=True,
        )
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Malformed(f"this cannot be written as JSON: {error}") from None


def instant_text(moment: datetime) -> str:
    """Return an instant as RFC 3339 in UTC, with microseconds where it has some."""
    plain = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{plain.isoformat()}Z"


def parse_object(data: bytes, where: str, limit: int) -> JsonObject:
    """Read the object that a document is. ``where`` names it in errors, ``limit`` is in bytes.

    Raises ``Malformed``.
    """
    if len(data) > limit:
        raise Malformed(
            f"{where}: {len(data)} bytes, where at most {limit} are read: this is no such document"
        )
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        if _HALF_CHARACTER.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise Malformed(f"{where}: its text is not UTF-8: get the document again") from None
    except RecursionError:
        raise Malformed(f"{where}: nested too deeply to be read: this is no such document") from None
    except ValueError as error:
        raise Malformed(f"{where}: not readable as JSON: {error}: get the document again") from None
    if not isinstance(value, dict):
        raise Malformed(f"{where}: an object is expected here, and this is {_kind(value)}")
    return JsonObject(value, where)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """An object in a document, and where it stands. Each method reads one field, or raises ``Malformed``."""

    value: dict[str, Any]
    where: str

    def __contains__(self, name: str) -> bool:
        return name in self.value

    def text(self, name: str, *, longest: int = LONGEST_TEXT, default: str | None = None) -> str:
        """Return a text; ``default`` where it is missing, if given."""
        if name not in self.value and default is not None:
            return default
        found = self._of(name, str, "a text")
        if len(found) > longest:
            raise self.wrong(name, f"{len(found)} characters, where at most {longest} are taken")
        return str(found)

    def integer(self, name: str, *, lowest: int = 0, highest: int = 2**53) -> int:
        """Return a whole number within its bounds."""
        found = self._of(name, int, "a whole number")
        if isinstance(found, bool) or not lowest <= found <= highest:
            raise self.wrong(name, f"{found!r}, where {lowest} to {highest} is expected")
        return int(found)

    def child(self, name: str) -> JsonObject:
        """Return an object within this one."""
        return JsonObject(self._of(name, dict, "an object"), self._at(name))

    def children(self, name: str, most: int) -> list[JsonObject]:
        """Return a list of at most ``most`` objects; an empty one where the field is missing."""
        return [
            JsonObject(self._element(name, place, item, dict, "an object"), f"{self._at(name)}[{place}]")
            for place, item in enumerate(self._list(name, most))
        ]

    def texts(self, name: str, most: int) -> list[str]:
        """Return a list of at most ``most`` texts; an empty one where the field is missing."""
        found = self._list(name, most)
        return [self._element(name, place, item, str, "a text") for place, item in enumerate(found)]

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a set of digests, ``{"sha256": "..."}``; others may stand beside it."""
        return self.child(name).hexadecimal("sha256")

    def hexadecimal(self, name: str) -> str:
        """Return 64 lower-case hexadecimal digits."""
        found = self.text(name, longest=64)
        if not _SHA256.fullmatch(found):
            raise self.wrong(name, "64 lower-case hexadecimal digits are expected")
        return found

    def instant(self, name: str) -> datetime:
        """Return an instant that is written as RFC 3339 in UTC."""
        found = self.text(name, longest=32)
        try:
            if not _INSTANT.fullmatch(found):
                raise ValueError
            return datetime.fromisoformat(found)
        except ValueError:
            raise self.wrong(name, f"{found!r} is no time in UTC, such as 2030-01-31T12:00:00Z") from None

    def wrong(self, name: str, what: str) -> Malformed:
        """Return the error about one field."""
        return Malformed(f"{self._at(name)}: {what}")

    def _of(self, name: str, kind: type, expected: str) -> Any:
        if name not in self.value:
            raise self.wrong(name, f"missing; {expected} is expected")
        return self._element(name, None, self.value[name], kind, expected)

    def _list(self, name: str, most: int) -> list[Any]:
        found = self.value.get(name, [])
        if not isinstance(found, list):
            raise self.wrong(name, f"a list is expected, and this is {_kind(found)}")
        if len(found) > most:
            raise self.wrong(name, f"{len(found)} items, where at most {most} are taken")
        return found

    def _element(self, name: str, place: int | None, item: Any, kind: type, expected: str) -> Any:
        if isinstance(item, kind):
            return item
        where = name if place is None else f"{name}[{place}]"
        raise self.wrong(where, f"{expected} is expected, and this is {_kind(item)}")

    def _at(self, name: str) -> str:
        return f"{self.where}: {name}" if ": " not in self.where else f"{self.where}.{name}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name[:64]!r} stands twice in one object")
            seen.add(name)
    return found


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _finite(word: str) -> float:
    found = float(word)
    if not math.isfinite(found):
        raise ValueError(f"{word[:32]} is too large for a number")
    return found


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
