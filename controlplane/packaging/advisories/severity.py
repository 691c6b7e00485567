"""How bad a finding is, and who says so.

First by the CVSS vectors that a record has for the package or for itself, then by those of records that it is
an alias of, then by the databases' own words, in the same order; else UNKNOWN, which is not harmless. Of
several vectors of one record the newest CVSS counts, for its authors replaced the older one by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from cvss import CVSS2, CVSS3, CVSS4  # type: ignore[import-untyped] # has no types
from cvss.exceptions import CVSSError  # type: ignore[import-untyped] # has no types

from controlplane.packaging.advisories.records import UNRATED, Affected, Rated, Rating, Record
from controlplane.packaging.records import Severity

MAX_VECTOR = 256
"""Characters of a vector; one of CVSS 4.0 with every metric has 200."""

_WORDS = {
    "critical": Severity.CRITICAL,
    "high": Severity.HIGH,
    "important": Severity.HIGH,
    "medium": Severity.MEDIUM,
    "moderate": Severity.MEDIUM,
    "low": Severity.LOW,
    "minor": Severity.LOW,
    "negligible": Severity.LOW,
    "unimportant": Severity.LOW,
    "none": Severity.LOW,
}
_CVSS = ("CVSS_V4", "CVSS_V3", "CVSS_V2")
"""OSV's types of vectors, the one that counts first."""


def rate(record: Record, blocks: Sequence[Affected] = (), through: Iterable[Record] = ()) -> Rated:
    """Return the severity of a record for a package that it speaks of in ``blocks``.

    ``through`` are records of the same vulnerability, best first; they are asked where this one has nothing.
    """
    others = list(through)
    found = _by_vector(record, blocks)
    for other in others:
        found = found or _by_vector(other, other.affected)
    found = found or _by_word(record, blocks)
    for other in others:
        found = found or _by_word(other, other.affected)
    return found or UNRATED


def of_vector(vector: str) -> Rated | None:
    """Return the severity of a CVSS vector of version 2, 3.x or 4.0, None for a text that is none.

    The source is the vector's version ("CVSS:3.1"). A score of 0 is LOW: the least that a finding can be.
    """
    return _of_vector(vector.strip()) if len(vector) <= MAX_VECTOR else None


@lru_cache(16_384)
def _of_vector(vector: str) -> Rated | None:
    try:
        if vector.startswith("CVSS:4"):
            four = CVSS4(vector)
            return Rated(_level(four.severity), "CVSS:4.0", float(four.base_score))
        if vector.startswith("CVSS:3"):
            three = CVSS3(vector)
            return Rated(_level(three.severities()[0]), vector[:8], float(three.base_score))
        two = CVSS2(vector.removeprefix("(").removesuffix(")").removeprefix("CVSS:2.0/"))
        return Rated(_level(two.severities()[0]), "CVSS:2.0", float(two.base_score))
    except (CVSSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # The library raises its own errors for most of what is no vector, and Python's for the rest.
        return None


@lru_cache(1_024)
def _level(word: str) -> Severity:
    return _WORDS.get(word.strip().lower(), Severity.UNKNOWN)


def _by_vector(record: Record, blocks: Sequence[Affected]) -> Rated | None:
    # OSV: the severity of a package stands before that of the record.
    of_package = [rating for block in blocks for rating in block.ratings]
    found = _newest(of_package) or _newest(record.ratings)
    return found and found._replace(source=f"{found.source} of {record.id}")


def _newest(ratings: Sequence[Rating]) -> Rated | None:
    rated = (
        found
        for kind in _CVSS
        for rating in ratings
        if rating.type == kind and (found := of_vector(rating.score)) is not None
    )
    return next(rated, None)


def _by_word(record: Record, blocks: Sequence[Affected]) -> Rated | None:
    for word in (*(block.word for block in blocks), record.word, *_words_in(record.ratings)):
        level = _level(word) if word else Severity.UNKNOWN
        if level is not Severity.UNKNOWN:
            return Rated(level, f'"{word}" of {record.id}', None)
    return None


def _words_in(ratings: Iterable[Rating]) -> list[str]:
    # Some distributions write a word where others have a vector ("type": "Ubuntu", "score": "medium").
    return [rating.score for rating in ratings if rating.type not in _CVSS]
