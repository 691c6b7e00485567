"""What a bound filter means, said in Python over one row: the yardstick for what the databases answer.

Two-valued throughout: a test of an absent value (None, or a missing label) is False.
"""

from __future__ import annotations

import operator
from typing import Any

from controlplane.filtering.bound import (
    BoundAnd,
    BoundComparison,
    BoundEverything,
    BoundFilter,
    BoundMatch,
    BoundNot,
    BoundOr,
    BoundPresence,
    LabelTarget,
    Place,
    Target,
)
from controlplane.filtering.schema import DurationField, TimestampField
from controlplane.filtering.tree import Operator
from tests.unit.filtering.strategies import Row

_COMPARE = {
    Operator.EQUAL: operator.eq,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


def matches(bound: BoundFilter, row: Row) -> bool:
    """Return whether the filter is true of the row."""
    match bound:
        case BoundEverything():
            return True
        case BoundAnd(parts):
            return all(matches(part, row) for part in parts)
        case BoundOr(parts):
            return any(matches(part, row) for part in parts)
        case BoundNot(part):
            return not matches(part, row)
        case BoundComparison(target, comparator, value):
            found = _value(target, row)
            return found is not None and bool(_COMPARE[comparator](found, value))
        case BoundMatch(target, place, piece):
            return _has_piece(_value(target, row), place, piece)
        case BoundPresence(target):
            found = _value(target, row)
            return found is not None if _is_message(target) else bool(found)


def _value(target: Target, row: Row) -> Any:
    if isinstance(target, LabelTarget):
        labels: Any = row[target.field]
        return labels.get(target.key)
    return row[target.name]


def _is_message(target: Target) -> bool:
    """Labels, times and durations are present whatever their value; other fields when not the default."""
    return isinstance(target, LabelTarget) or isinstance(target.type, TimestampField | DurationField)


def _has_piece(found: Any, place: Place, piece: str) -> bool:
    if found is None:
        return False
    text = str(found)
    return {
        Place.START: text.startswith(piece),
        Place.END: text.endswith(piece),
        Place.ANYWHERE: piece in text,
    }[place]
