"""Instants and durations in messages: only those that the well-known types allow get in.

A ``Timestamp`` or ``Duration`` is two plain integers on the wire. Values out of their
range (timestamp.proto and duration.proto say which) cannot be converted, so they are
refused at the door, wherever in a message they stand. Which fields of a type can hold
one is looked up once for each type: a message without any costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from controlplane.errors import FieldViolation

_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_DURATION_SECONDS = 315_576_000_000  # 10,000 years
_NANOS = 1_000_000_000


def timestamp_in_range(seconds: int, nanos: int) -> bool:
    """Return whether these two are an instant of the years 1 to 9999."""
    return _FIRST_SECOND <= seconds <= _LAST_SECOND and 0 <= nanos < _NANOS


def duration_in_range(seconds: int, nanos: int) -> bool:
    """Return whether these two are a duration of at most 10,000 years, both parts of one sign."""
    one_sign = seconds == 0 or nanos == 0 or (seconds < 0) == (nanos < 0)
    return one_sign and -_NANOS < nanos < _NANOS and -_DURATION_SECONDS <= seconds <= _DURATION_SECONDS


@dataclass(frozen=True, slots=True)
class _Kind:
    in_range: Callable[[int, int], bool]
    rule: str


_KINDS = {
    "google.protobuf.Timestamp": _Kind(
        timestamp_in_range, "must lie in the years 1 to 9999, with nanos from 0 to 999,999,999"
    ),
    "google.protobuf.Duration": _Kind(
        duration_in_range, "must be at most 10,000 years, with nanos of the same sign, below a second"
    ),
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A field that is, or may hold, an instant or a duration; ``holder`` is its type in the last case."""

    name: str
    many: bool
    keyed: bool
    kind: _Kind | None
    holder: Descriptor | None


def out_of_range(message: Message) -> list[FieldViolation]:
    """Return one violation for each Timestamp or Duration anywhere in ``message`` that is none."""
    if _all_in_range(message.DESCRIPTOR)(message):
        return []
    return list(_violations(message, message.DESCRIPTOR, ""))


@cache
def _all_in_range(descriptor: Descriptor) -> Callable[[Any], bool]:
    """Return the question whether all is well in a message of this type: of its hundred points, say.

    As good as always it is, and then no path to a field is needed.
    """
    questions = [_question(place) for place in _places(descriptor)]
    if len(questions) == 1:
        return questions[0]
    return lambda message: all(well(message) for well in questions)


def _question(place: _Place) -> Callable[[Any], bool]:
    held, well = attrgetter(place.name), _well(place)
    if place.keyed:
        return lambda message: all(map(well(), held(message).values()))
    if place.many:
        return lambda message: all(map(well(), held(message)))
    if place.kind is not None:
        alone = well()
        return lambda message: alone(held(message))  # one that is not set reads as zero, which is in range
    return lambda message: not message.HasField(place.name) or well()(held(message))


def _well(place: _Place) -> Callable[[], Callable[[Any], bool]]:
    """Return what returns the question about a value of ``place``: later, for a type may hold itself."""
    kind, holder = place.kind, place.holder
    if kind is None:
        return lambda: _all_in_range(holder) if holder is not None else bool
    in_range = kind.in_range
    return lambda: lambda value: in_range(value.seconds, value.nanos)


def _violations(message: Any, descriptor: Any, path: str) -> Iterator[FieldViolation]:
    for place in _places(descriptor):
        for value, where in _values(message, place, f"{path}{place.name}"):
            if place.kind is not None:
                if not place.kind.in_range(value.seconds, value.nanos):
                    yield FieldViolation(where, place.kind.rule)
            elif place.holder is not None:
                yield from _violations(value, place.holder, f"{where}.")


def _values(message: Any, place: _Place, path: str) -> Iterable[tuple[Any, str]]:
    if place.keyed:
        return ((value, f"{path}[{_key(key)}]") for key, value in getattr(message, place.name).items())
    if place.many:
        return ((value, f"{path}[{i}]") for i, value in enumerate(getattr(message, place.name)))
    return ((getattr(message, place.name), path),) if message.HasField(place.name) else ()


def _key(key: object) -> str:
    return f'"{key}"' if isinstance(key, str) else str(key)


@cache
def _places(descriptor: Descriptor) -> tuple[_Place, ...]:
    return tuple(place for field in descriptor.fields if (place := _place(field)) is not None)


def _place(field: FieldDescriptor) -> _Place | None:
    held = field.message_type
    keyed = held is not None and held.GetOptions().map_entry
    if held is not None and keyed:
        held = held.fields_by_name["value"].message_type
    if held is None or not _can_hold(held, frozenset()):
        return None
    kind = _KINDS.get(held.full_name)
    return _Place(field.name, field.is_repeated, keyed, kind, held if kind is None else None)


def _can_hold(descriptor: Descriptor, above: frozenset[str]) -> bool:
    """Return whether a message of this type can hold one; ``above`` are the types that it stands in."""
    if descriptor.full_name in _KINDS:
        return True
    above |= {descriptor.full_name}
    held = (field.message_type for field in descriptor.fields)
    return any(
        type_.full_name not in above and _can_hold(type_, above) for type_ in held if type_ is not None
    )
