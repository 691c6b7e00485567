"""Which fields a listing can be filtered by, and of what type each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class TextField:
    """Text, compared case-sensitively and ordered by code point."""


@dataclass(frozen=True, slots=True)
class IntegerField:
    """A whole number of at most 64 bits."""


@dataclass(frozen=True, slots=True)
class RealField:
    """A floating-point number; stores keep NaN out, for databases disagree about it."""


@dataclass(frozen=True, slots=True)
class BooleanField:
    """A truth value, in a column of type Boolean."""


@dataclass(frozen=True, slots=True)
class TimestampField:
    """A time, stored as integer microseconds since the epoch, UTC."""


@dataclass(frozen=True, slots=True)
class DurationField:
    """A duration, stored as integer microseconds."""


@dataclass(frozen=True)
class EnumField:
    """A name out of a set; ``values`` maps each name of the contract to what the column stores.

    ``prefix`` is the contract's, as in ``PRESENCE_``: callers may write names
    with it or without it, and so may ``values``.
    """

    values: Mapping[str, str | int]
    prefix: str = ""

    def stored(self, name: str) -> str | int | None:
        """Return what the column stores for a name; None for a name that is not of this enum."""
        short = {key.removeprefix(self.prefix): value for key, value in self.values.items()}
        return short.get(name.removeprefix(self.prefix))

    def names(self) -> tuple[str, ...]:
        """Return the names, without the prefix."""
        return tuple(key.removeprefix(self.prefix) for key in self.values)


@dataclass(frozen=True, slots=True)
class LabelsField:
    """A map from text to text, kept in a side table with a row for each key."""


@dataclass(frozen=True, slots=True)
class NamesField:
    """A set of names, kept in a side table with a row for each; asked with ``:`` alone."""


FieldType: TypeAlias = (
    TextField
    | IntegerField
    | RealField
    | BooleanField
    | TimestampField
    | DurationField
    | EnumField
    | LabelsField
    | NamesField
)


@dataclass(frozen=True)
class FilterSchema:
    """The fields of one listing, by the names of the contract; a nested one as ``os.family``.

    ``searched`` are the text fields in which a literal without a field is looked
    for; without them, such a literal is an error. Raises ValueError for a
    searched field that is not text, and for a second map of labels.
    """

    fields: Mapping[str, FieldType]
    searched: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.searched:
            if not isinstance(self.fields.get(name), TextField):
                raise ValueError(f"searched field {name!r} must be declared as a TextField")
        if sum(isinstance(kind, LabelsField) for kind in self.fields.values()) > 1:
            raise ValueError("a listing has at most one LabelsField: compile_filter takes one side table")
