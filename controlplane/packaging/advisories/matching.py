"""Does a version fall into what a record says of its package? Pure; OSV's own evaluation, and why.

Invariants:

* A version is affected when a block lists it, or when one of the block's ranges, its events sorted by the
  ecosystem's rules, has begun and not ended at it (ossf.github.io/osv-schema, "Evaluation").
* ``introduced: "0"`` stands below every version. Events of one version keep the record's order.
* What cannot be compared is never "not affected": the verdict is UNDECIDED and says what stood in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

from controlplane.packaging.advisories import versions
from controlplane.packaging.advisories.names import base, normalise, releases
from controlplane.packaging.advisories.osv import COMPARED
from controlplane.packaging.advisories.records import Affected, Event, Range, Record
from controlplane.packaging.advisories.rows import Entry, blocks_of
from controlplane.packaging.advisories.versions import UnknownEcosystemError, VersionError

MAX_FIXES = 64
"""Fixed versions that are tried for one that is affected by nothing of the record."""


class Outcome(Enum):
    """What a record means for a version."""

    AFFECTED = "affected"
    NOT_AFFECTED = "not affected"
    UNDECIDED = "could not compare"


class Verdict(NamedTuple):
    """An outcome, which event or entry decided it, and the lowest fixed version above, or ""."""

    outcome: Outcome
    words: str = ""
    fixed: str = ""


NOT_AFFECTED = Verdict(Outcome.NOT_AFFECTED)
BY_ANOTHER = Verdict(Outcome.AFFECTED, "not affected by our comparison")
"""Of what another engine alone calls affected."""


class _Placed(NamedTuple):
    """An event at its place in the order of versions; ``key`` is None below every version."""

    event: Event
    key: Any


def match(record: Record, ecosystem: str, name: str, version: str) -> Verdict:
    """Return what a whole record means for a version of a package; a withdrawn one means nothing."""
    if record.withdrawn is not None:
        return NOT_AFFECTED
    wanted = normalise(ecosystem, name)
    speaking = releases(ecosystem, {one.ecosystem for one in record.affected})
    blocks = [
        one
        for one in record.affected
        if one.ecosystem in speaking and normalise(ecosystem, one.name) == wanted
    ]
    return judge(ecosystem, version, [spelled(ecosystem, one) for one in blocks]) if blocks else NOT_AFFECTED


def judging(ecosystem: str, name: str, version: str) -> Callable[[Entry], Verdict]:
    """Return what judges a version of a package by one stored entry after another, as ``judge`` does.

    Its function may raise ``rows.EntryError``. Most entries of distributions say nothing but "before the
    fix": those are judged without making their blocks.
    """
    key_of = versions.keys(ecosystem)
    try:
        key = key_of(version)
    except (VersionError, UnknownEcosystemError):
        key = None
    # Of a legacy version of PyPI that is not before the fix there is more to say.
    otherwise = None if base(ecosystem) == "PyPI" else NOT_AFFECTED

    def judged(entry: Entry) -> Verdict:
        verdict = _before(key_of, key, entry.fix, otherwise) if entry.fix and key is not None else None
        return verdict or judge(ecosystem, version, blocks_of(ecosystem, name, entry))

    return judged


def _before(key_of: Callable[[str], Any], key: Any, fix: str, otherwise: Verdict | None) -> Verdict | None:
    """Judge by "introduced 0, fixed ..." alone; None where that is not all there is to it."""
    try:
        if key < key_of(fix):
            return Verdict(Outcome.AFFECTED, f"{_FROM_THE_FIRST_ON}, before fixed {fix}", fix)
    except VersionError:
        return None
    return otherwise


def spelled(ecosystem: str, block: Affected) -> Affected:
    """Return a block whose listed versions have their one spelling."""
    return block._replace(versions=[versions.spelling(ecosystem, one) for one in block.versions])


def judge(ecosystem: str, version: str, blocks: Sequence[Affected]) -> Verdict:
    """Return what the blocks of a record for one package mean for a version of it.

    The blocks' listed versions have their one spelling (``spelled``), as an import stores them.
    """
    try:
        key = versions.key(ecosystem, version)
    except VersionError as error:
        return _without_order(ecosystem, version, blocks, str(error))
    except UnknownEcosystemError as error:
        return Verdict(Outcome.UNDECIDED, f"could not compare: {error}")
    undecided = ""
    for block in blocks:
        verdict = _of_block(ecosystem, version, key, block)
        if verdict.outcome is Outcome.AFFECTED:
            return Verdict(Outcome.AFFECTED, verdict.words, _fixed(ecosystem, key, blocks))
        undecided = undecided or verdict.words
    if undecided:
        return Verdict(Outcome.UNDECIDED, f"could not compare: {undecided}", _fixed(ecosystem, key, blocks))
    return NOT_AFFECTED


def _without_order(ecosystem: str, version: str, blocks: Sequence[Affected], why: str) -> Verdict:
    """Judge a version that has no place: it is affected where it is listed, or where every version is."""
    for block in blocks:
        if versions.spelling(ecosystem, version) in block.versions:
            return Verdict(Outcome.AFFECTED, f"version {version} is listed")
        if any(one.events and all(event == _FROM_THE_FIRST for event in one.events) for one in block.ranges):
            return Verdict(Outcome.AFFECTED, "every version is affected (introduced 0, never fixed)")
    return Verdict(Outcome.UNDECIDED, f"could not compare: {why}")


_FROM_THE_FIRST = Event("introduced", "0")
_FROM_THE_FIRST_ON = "from the first version on (introduced 0)"
_NO_LIMIT = Event("limit", "*")
_WITHOUT_PLACE = (_FROM_THE_FIRST, _NO_LIMIT)


def _of_block(ecosystem: str, version: str, key: Any, block: Affected) -> Verdict:
    if block.versions and versions.spelling(ecosystem, version) in block.versions:
        return Verdict(Outcome.AFFECTED, f"version {version} is listed")
    undecided = ""
    compared = [one for one in block.ranges if one.type in COMPARED]
    for one in compared:
        verdict = _of_range(ecosystem, version, key, one)
        if verdict.outcome is Outcome.AFFECTED:
            return verdict
        undecided = undecided or verdict.words
    if not compared and not block.versions:
        undecided = _nothing_said(block)
    return Verdict(Outcome.UNDECIDED, undecided) if undecided else NOT_AFFECTED


def _nothing_said(block: Affected) -> str:
    kinds = ", ".join(sorted({one.type for one in block.ranges}))
    if kinds:
        return f"the record has ranges of type {kinds} alone, and no versions"
    return "the record names the package, and no versions"


def _of_range(ecosystem: str, version: str, key: Any, one: Range) -> Verdict:
    try:
        placed = _placed(ecosystem, one.events)
    except VersionError as error:
        return Verdict(Outcome.UNDECIDED, f"an event of the record is no version ({error})")
    kinds = [event.kind for event in one.events]
    if "introduced" not in kinds:
        return Verdict(Outcome.UNDECIDED, "a range of the record begins nowhere")
    if "limit" in kinds and not _within_limits(placed, key):
        return NOT_AFFECTED
    begun = _begun(placed, key)
    if begun is not None:
        return Verdict(Outcome.AFFECTED, _words(begun.event, placed, key))
    if base(ecosystem) != "PyPI":
        return NOT_AFFECTED
    doubtful = next((text for text in _texts(version, one) if not versions.certain(ecosystem, text)), None)
    if doubtful is not None:
        return Verdict(
            Outcome.UNDECIDED, f"{doubtful} is a version of before PEP 440, whose place is not certain"
        )
    return NOT_AFFECTED


def _within_limits(placed: Sequence[_Placed], key: Any) -> bool:
    return any(one.key is None or key < one.key for one in placed if one.event.kind == "limit")


def _texts(version: str, one: Range) -> Iterator[str]:
    yield version
    yield from (event.version for event in one.events if event not in _WITHOUT_PLACE)


def _placed(ecosystem: str, events: Sequence[Event]) -> list[_Placed]:
    """Return events in the order of versions. Raises ``VersionError``."""
    lowest: list[_Placed] = []
    others: list[_Placed] = []
    for event in events:
        if event.version in "0*" and event in _WITHOUT_PLACE:
            lowest.append(_Placed(event, None))
        else:
            others.append(_Placed(event, versions.key(ecosystem, event.version)))
    if len(others) > 1:
        others.sort(key=lambda placed: placed.key)
    return lowest + others


def _begun(placed: Sequence[_Placed], key: Any) -> _Placed | None:
    """Return the event by which a version is affected, None where it is not."""
    begun: _Placed | None = None
    for one in placed:
        kind = one.event.kind
        if kind == "introduced":
            if one.key is None or key >= one.key:
                begun = one
        elif (kind == "fixed" and key >= one.key) or (kind == "last_affected" and key > one.key):
            begun = None
    return begun


def _words(begun: Event, placed: Sequence[_Placed], key: Any) -> str:
    beginning = _FROM_THE_FIRST_ON if begun == _FROM_THE_FIRST else f"introduced {begun.version}"
    for one in placed:
        if one.event.kind == "fixed" and key < one.key:
            return f"{beginning}, before fixed {one.event.version}"
        if one.event.kind == "last_affected" and key <= one.key:
            return f"{beginning}, up to last_affected {one.event.version}"
    return f"{beginning}, no fix known"


def _fixed(ecosystem: str, key: Any, blocks: Sequence[Affected]) -> str:
    """Return the lowest fixed version above, which no block calls affected; empty where there is none."""
    fixes: dict[str, Any] = {}
    for one in (one for block in blocks for one in block.ranges if one.type in COMPARED):
        for event in one.events:
            if event.kind == "fixed" and event.version not in fixes:
                try:
                    fixes[event.version] = versions.key(ecosystem, event.version)
                except VersionError:
                    continue
    above = sorted((text for text in fixes if fixes[text] > key), key=lambda text: (fixes[text], text))
    if len(blocks) == len(above) == len(blocks[0].ranges) == 1 and not blocks[0].versions:
        kinds = [event.kind for event in blocks[0].ranges[0].events]
        if kinds.count("introduced") == 1:
            # What begins once has ended at its fix.
            return above[0]
    for text in above[:MAX_FIXES]:
        found = (_of_block(ecosystem, text, fixes[text], block).outcome for block in blocks)
        if Outcome.AFFECTED not in found:
            return text
    return ""
