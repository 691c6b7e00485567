"""A filter whose fields are known and whose values have their types: what stores compile.

Two-valued: a comparison with an absent value is false, and its negation is
true. ``!=`` is gone: it is the negation of ``=``, as AIP-160 says («true
unless»), so it is true of what is absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from controlplane.filtering.schema import FieldType
from controlplane.filtering.tree import Operator

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class FieldTarget:
    """A field of the row itself."""

    name: str
    type: FieldType


@dataclass(frozen=True, slots=True)
class LabelTarget:
    """The value of one label; absent where the map lacks the key."""

    field: str
    key: str


Target: TypeAlias = FieldTarget | LabelTarget


class Place(StrEnum):
    """Where in a text a piece must stand."""

    START = "start"
    END = "end"
    ANYWHERE = "anywhere"


@dataclass(frozen=True, slots=True)
class BoundComparison:
    """``target operator value``; the operator is one of = < <= > >=, and only = for booleans and enums."""

    target: Target
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class BoundMatch:
    """True if the target, a text, has ``piece`` at ``place``; an empty piece is in every text."""

    target: Target
    place: Place
    piece: str


@dataclass(frozen=True, slots=True)
class BoundPresence:
    """True if the target has a value.

    Of a field, that is one that is not the default of its type (AIP-160: empty
    text, zero, false); of a label, its key; of the map of labels, any key.
    """

    target: Target


@dataclass(frozen=True, slots=True)
class BoundAnd:
    """True if every part is."""

    parts: tuple[BoundFilter, ...]


@dataclass(frozen=True, slots=True)
class BoundOr:
    """True if any part is."""

    parts: tuple[BoundFilter, ...]


@dataclass(frozen=True, slots=True)
class BoundNot:
    """True if the part is not."""

    part: BoundFilter


@dataclass(frozen=True, slots=True)
class BoundEverything:
    """Always true."""


BoundFilter: TypeAlias = (
    BoundAnd | BoundOr | BoundNot | BoundComparison | BoundMatch | BoundPresence | BoundEverything
)
