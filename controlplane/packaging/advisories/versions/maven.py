"""Versions of Maven artefacts, by the rules of Maven's ComparableVersion (as of Maven 3.9 and 4).

A version is a list of numbers, qualifiers and, behind each hyphen or change between letters and digits, lists
(maven.apache.org/pom.html, "Version Order Specification"). A qualifier with a number behind it ("rc-1",
"rc1") is one item. Trailing zeros are nothing. What is missing on one side is compared with nothing:
qualifiers up to "snapshot" stand below it, "ga", "final" and "release" are as it, "sp" and unknown ones stand
above it.
"""

from __future__ import annotations

from functools import cmp_to_key
from itertools import zip_longest
from typing import Any

from controlplane.packaging.advisories.versions.text import checked

_QUALIFIERS = ("alpha", "beta", "milestone", "rc", "snapshot", "", "sp")
_RELEASE = "5"
_RANKS = {
    **{qualifier: str(rank) for rank, qualifier in enumerate(_QUALIFIERS)},
    **dict.fromkeys(("ga", "final", "release"), _RELEASE),
}
_SHORT = {"a": "alpha", "b": "beta", "m": "milestone"}

# A number, a qualifier, a qualifier with its number, or a list.
Item = int | str | tuple[str, int] | list[Any]


def parse(text: str) -> Any:
    """Return the sort key of a version. Raises ``VersionError``."""
    return _key(_Reader(checked(text, "Maven").lower()).read())


class _Reader:
    """Reads one version into nested lists."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._list: list[Item] = []
        self._lists = [self._list]
        self._start = 0
        self._digits = False
        self._combined = False

    def read(self) -> list[Item]:
        """Return the items of the version."""
        for place, character in enumerate(self._text):
            if character == ".":
                self._end(place)
                self._start, self._combined = place + 1, False
            elif character == "-":
                self._hyphen(place)
            elif character in "0123456789":
                self._digit(place)
            else:
                self._letter(place)
        if len(self._text) > self._start:
            # "1.0.x" is as "1.0-x" for any qualifier x.
            if not self._digits and self._list:
                self._nest()
            self._add(len(self._text))
        for one in reversed(self._lists):
            _normalise(one)
        return self._lists[0]

    def _hyphen(self, place: int) -> None:
        if place > self._start and not self._digits and self._text[place + 1 : place + 2] in _DIGITS:
            # "x-1" is as "x1".
            self._combined = True
            return
        self._end(place)
        self._start, self._combined = place + 1, False
        if self._list:
            self._nest()

    def _digit(self, place: int) -> None:
        if not self._digits and place > self._start:
            self._combined = True
            if self._list:
                self._nest()
        self._digits = True

    def _letter(self, place: int) -> None:
        if self._digits and place > self._start:
            self._add(place)
            self._start, self._combined = place, False
            self._nest()
        self._digits = False

    def _end(self, place: int) -> None:
        if place == self._start:
            self._list.append(0)
        else:
            self._add(place)

    def _add(self, end: int) -> None:
        part = self._text[self._start : end]
        if self._combined:
            self._list.append(_combination(part.replace("-", "")))
        else:
            self._list.append(int(part) if self._digits else _qualifier(part))

    def _nest(self) -> None:
        inner: list[Item] = []
        self._list.append(inner)
        self._list = inner
        self._lists.append(inner)


_DIGITS = frozenset("0123456789")


def _combination(part: str) -> tuple[str, int]:
    letters = part.rstrip("0123456789")
    return _qualifier(_SHORT.get(letters, letters)), int(part[len(letters) :] or "0")


def _qualifier(text: str) -> str:
    return "rc" if text == "cr" else text


def _normalise(items: list[Item]) -> None:
    """Take out what is nothing at the end and before qualifiers."""
    for place in reversed(range(len(items))):
        if items[place] in (0, "", []) and _at_an_end(items, place):
            del items[place]
    if len(items) == 1 and isinstance(items[0], list):
        # Otherwise the qualifier of "0.x" would stand a level deeper than that of "x".
        items[:] = items[0]


def _at_an_end(items: list[Item], place: int) -> bool:
    if place == len(items) - 1:
        return True
    behind = items[place + 1]
    if isinstance(behind, list):
        return bool(behind) and isinstance(behind[0], str | tuple)
    return isinstance(behind, str)


def _sign(less: bool, more: bool) -> int:
    return more - less


def _rank(qualifier: str) -> str:
    return _RANKS.get(qualifier) or f"{len(_QUALIFIERS)}-{qualifier}"


def _compare_texts(a: str, b: str) -> int:
    return _sign(_rank(a) < _rank(b), _rank(a) > _rank(b))


def _with_nothing(item: Item) -> int:
    if isinstance(item, int):
        return int(item != 0)
    if isinstance(item, str):
        return _compare_texts(item, "")
    return next((result for part in item if (result := _with_nothing(part))), 0)


def _compare(a: Item | None, b: Item | None) -> int:
    if a is None or b is None:
        return _with_nothing(a) if a is not None else -_with_nothing(b) if b is not None else 0
    if isinstance(a, int) or isinstance(b, int):
        if isinstance(a, int) and isinstance(b, int):
            return _sign(a < b, a > b)
        # A number stands above everything else: 1.1 > 1-1 > 1-sp.
        return 1 if isinstance(a, int) else -1
    if isinstance(a, list):
        return _compare_lists(a, b)
    return -_compare_lists(b, a) if isinstance(b, list) else _compare_qualifiers(a, b)


def _compare_lists(a: list[Item], b: str | tuple[str, int] | list[Any]) -> int:
    pairs = zip_longest(a, b if isinstance(b, list) else [b])
    return next((result for one, other in pairs if (result := _compare(one, other))), 0)


def _compare_qualifiers(a: str | tuple[str, int], b: str | tuple[str, int]) -> int:
    """Compare qualifiers, which may have a number: "rc" stands below "rc1", and "ga" equals "ga0"."""
    name_a, number_a = (a, None) if isinstance(a, str) else a
    name_b, number_b = (b, None) if isinstance(b, str) else b
    result = _compare_texts(name_a, name_b)
    if result or number_a is number_b is None:
        return result
    if number_a is not None and number_b is not None:
        return _sign(number_a < number_b, number_a > number_b)
    if _with_nothing(name_a) == 0:
        return _sign((number_a or 0) < (number_b or 0), (number_a or 0) > (number_b or 0))
    return 1 if number_b is None else -1


_key = cmp_to_key(_compare)
