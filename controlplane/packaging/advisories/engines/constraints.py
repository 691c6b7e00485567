"""A record's blocks for a package, as the constraints that Trivy compares a version with.

For languages Trivy takes ranges (">=1.0, <1.2") and single versions ("=1.0"), joined by "or"; for
distributions only the version that fixed it. What cannot be said that way is left out, and then Trivy's
"not affected" means nothing: ``Constraints.whole`` is False.

One text that is no version makes Trivy pass over the whole advisory. So what our own rules cannot read is not
given to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from controlplane.packaging.advisories import versions
from controlplane.packaging.advisories.osv import COMPARED
from controlplane.packaging.advisories.records import Affected, Event, Range
from controlplane.packaging.advisories.versions import UnknownEcosystemError, VersionError

ALWAYS = ""
"""The constraint that every version meets."""

_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_~!:^-]*", re.ASCII)
_BEGINS, _ENDS = "introduced", {"fixed": "<", "last_affected": "<="}


class Constraints(NamedTuple):
    """What a version must meet to be affected: any of ``texts``."""

    texts: Sequence[str]
    whole: bool
    """Whether they say all that the record says."""


class _Inexpressible(Exception):
    """A range cannot be said."""


def of_language(ecosystem: str, blocks: Sequence[Affected]) -> Constraints:
    """Return the constraints of a record about a package of a language."""
    texts: list[str] = []
    whole = True
    for block in blocks:
        listed = [text for text in block.versions if _is_plain(ecosystem, text)]
        texts += [f"={text}" for text in listed]
        whole = whole and len(listed) == len(block.versions) and bool(block.versions or _compared(block))
        for one in _compared(block):
            try:
                texts += _intervals(ecosystem, one)
            except _Inexpressible:
                whole = False
    distinct = list(dict.fromkeys(texts))
    return Constraints([ALWAYS] if ALWAYS in distinct else distinct, whole)


def fix_of_system(ecosystem: str, blocks: Sequence[Affected]) -> str | None:
    """Return the version that fixed a record about a distribution's package; "" where none did yet.

    None where the record says something else, or more, than that all versions before one are affected.
    """
    said = {_fix(ecosystem, one) for block in blocks for one in _compared(block)}
    if len(said) != 1 or any(not _compared(block) or block.versions for block in blocks):
        return None
    return said.pop()


def _compared(block: Affected) -> list[Range]:
    return [one for one in block.ranges if one.type in COMPARED]


def _fix(ecosystem: str, one: Range) -> str | None:
    events = list(one.events)
    if events[:1] != [Event(_BEGINS, "0")] or len(events) > 2:
        return None
    if len(events) == 1:
        return ""
    end = events[1]
    return end.version if end.kind == "fixed" and _is_plain(ecosystem, end.version) else None


def _intervals(ecosystem: str, one: Range) -> Iterator[str]:
    begun: Event | None = None
    for event in _ordered(ecosystem, one.events):
        if event.kind == _BEGINS:
            begun = begun or event
        elif begun is not None:
            yield _interval(begun, f"{_ENDS[event.kind]}{event.version}")
            begun = None
    if begun is not None:
        yield _interval(begun, "")


def _interval(begun: Event, end: str) -> str:
    if begun.version == "0":
        return end or ALWAYS
    return f">={begun.version}, {end}" if end else f">={begun.version}"


def _ordered(ecosystem: str, events: Sequence[Event]) -> list[Event]:
    """Return events as intervals go: as they stand where they take turns, else by their versions."""
    for event in events:
        if event.kind not in (_BEGINS, *_ENDS) or not (
            event == Event(_BEGINS, "0") or _is_plain(ecosystem, event.version)
        ):
            raise _Inexpressible
    if not any(event.kind == _BEGINS for event in events):
        raise _Inexpressible
    begins = [event.kind == _BEGINS for event in events]
    if len(begins) <= 2 and begins[0]:
        return list(events)
    return sorted(events, key=lambda event: _place(ecosystem, event))


def _place(ecosystem: str, event: Event) -> tuple[bool, Any]:
    if event == Event(_BEGINS, "0"):
        return False, ()
    return True, versions.key(ecosystem, event.version)


def _is_plain(ecosystem: str, text: str) -> bool:
    try:
        versions.key(ecosystem, text)
        return _PLAIN.fullmatch(text) is not None and versions.certain(ecosystem, text)
    except (VersionError, UnknownEcosystemError):
        return False
