"""The tree of a parsed filter, before anyone has said which fields there are.

Positions are zero-based characters of the text; they take no part in equality,
so that two filters that say the same are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class Operator(StrEnum):
    """The comparison operators of AIP-160."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Literal:
    """A piece of text: a value, or one segment of a field path.

    ``text`` has its escapes resolved. ``wildcards`` are the indices in it of
    each ``*`` that was not escaped.
    """

    text: str
    quoted: bool = False
    wildcards: tuple[int, ...] = ()
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """``path operator value``, as in ``labels.env = "prod"``."""

    path: tuple[Literal, ...]
    operator: Operator
    value: Literal
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Search:
    """A literal without a field: looked for in the fields that the listing searches."""

    literal: Literal


@dataclass(frozen=True, slots=True)
class And:
    """True if every part is; two parts or more."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if any part is; two parts or more."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True if the part is not."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Everything:
    """The empty filter: always true."""


Filter: TypeAlias = And | Or | Not | Comparison | Search | Everything
