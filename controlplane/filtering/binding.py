"""From the tree of a filter to one whose fields and values are checked against a schema."""

from __future__ import annotations

from controlplane.filtering.bound import (
    BoundAnd,
    BoundComparison,
    BoundEverything,
    BoundFilter,
    BoundMatch,
    BoundNot,
    BoundOr,
    BoundPresence,
    FieldTarget,
    LabelTarget,
    Place,
    Target,
    Value,
)
from controlplane.filtering.errors import FilterError, quote, suggest
from controlplane.filtering.grammar import parse
from controlplane.filtering.literals import (
    read_boolean,
    read_duration,
    read_integer,
    read_real,
    read_timestamp,
)
from controlplane.filtering.schema import (
    BooleanField,
    DurationField,
    EnumField,
    FieldType,
    FilterSchema,
    IntegerField,
    LabelsField,
    NamesField,
    RealField,
    TextField,
    TimestampField,
)
from controlplane.filtering.tree import (
    And,
    Comparison,
    Everything,
    Filter,
    Literal,
    Not,
    Operator,
    Or,
    Search,
)

_ORDERINGS = frozenset({Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL})


def read(text: str, schema: FilterSchema, *, field: str = "filter") -> BoundFilter:
    """Parse and bind the filter that a request carries in ``field``.

    Raises FilterError, which names that field.
    """
    try:
        return bind(parse(text), schema)
    except FilterError as error:
        raise error.of_field(field) from None


def bind(tree: Filter, schema: FilterSchema) -> BoundFilter:
    """Resolve the fields and convert the values of a filter.

    Raises FilterError for an unknown field, an operator that its type does not
    have, and a value that is not of its type.
    """
    match tree:
        case And(parts):
            return BoundAnd(tuple(bind(part, schema) for part in parts))
        case Or(parts):
            return BoundOr(tuple(bind(part, schema) for part in parts))
        case Not(part):
            return BoundNot(bind(part, schema))
        case Comparison():
            return _bind_comparison(tree, schema)
        case Search(literal):
            return _bind_search(literal, schema)
        case Everything():
            return BoundEverything()


def _bind_comparison(comparison: Comparison, schema: FilterSchema) -> BoundFilter:
    target = _resolve(comparison.path, schema)
    value = comparison.value
    if isinstance(target, FieldTarget) and isinstance(target.type, LabelsField):
        return _bind_label_key(target, comparison)
    if comparison.operator is Operator.HAS and _is_star(value):
        return BoundPresence(target)
    if isinstance(target, FieldTarget) and isinstance(target.type, NamesField):
        return _bind_name(target, comparison)
    kind = target.type if isinstance(target, FieldTarget) else TextField()
    if comparison.operator in _ORDERINGS:
        return _bind_ordering(target, kind, comparison)
    equal = _bind_equality(target, kind, value)
    return BoundNot(equal) if comparison.operator is Operator.NOT_EQUAL else equal


def _resolve(path: tuple[Literal, ...], schema: FilterSchema) -> Target:
    first, names = path[0], [segment.text for segment in path]
    for segment in path:
        if segment.wildcards and not segment.quoted:
            raise FilterError("a field is named without *: wildcards stand in values", segment.position)
    name = ".".join(names)
    if name in schema.fields:
        return FieldTarget(name, schema.fields[name])
    kind = schema.fields.get(names[0])
    if isinstance(kind, LabelsField):
        # Keys of labels may have dots, so labels.app.kubernetes.io/name needs no quotes.
        return LabelTarget(names[0], ".".join(names[1:]))
    if kind is not None:
        raise FilterError(f"{names[0]} has no fields of its own: compare it itself", path[1].position)
    raise FilterError(f"unknown field {quote(name)}: {suggest(name, schema.fields)}", first.position)


def _bind_label_key(target: FieldTarget, comparison: Comparison) -> BoundFilter:
    key = comparison.value
    if comparison.operator is not Operator.HAS:
        raise FilterError(
            f"{target.name} is a map: compare one label, as in {target.name}.env = prod, "
            f"or ask for a key, as in {target.name}:env",
            comparison.position,
        )
    if _is_star(key):
        return BoundPresence(target)
    if key.wildcards:
        raise FilterError("a key of a label is named whole, without *", key.position)
    return BoundPresence(LabelTarget(target.name, key.text))


def _bind_name(target: FieldTarget, comparison: Comparison) -> BoundFilter:
    if comparison.operator is not Operator.HAS:
        raise FilterError(
            f"{target.name} is a set of names: ask whether it has one, as in {target.name}:canary",
            comparison.position,
        )
    return _bind_equality(target, TextField(), comparison.value)


def _bind_ordering(target: Target, kind: FieldType, comparison: Comparison) -> BoundFilter:
    if isinstance(kind, BooleanField | EnumField):
        raise FilterError(
            f"{_name(target)} has no order: compare it with = or !=, or with several values "
            "as in field = (A OR B)",
            comparison.position,
        )
    if isinstance(kind, TextField) and comparison.value.wildcards:
        raise FilterError(
            f"wildcards do not work with {comparison.operator}: use =, != or :, "
            "or write \\* in quotes for a star itself",
            comparison.value.position,
        )
    return BoundComparison(target, comparison.operator, _convert(target, kind, comparison.value))


def _bind_equality(target: Target, kind: FieldType, value: Literal) -> BoundFilter:
    if isinstance(kind, TextField) and value.wildcards:
        return _bind_pattern(target, value)
    return BoundComparison(target, Operator.EQUAL, _convert(target, kind, value))


def _bind_pattern(target: Target, value: Literal) -> BoundMatch:
    last = len(value.text) - 1
    at_start, at_end = 0 in value.wildcards, last in value.wildcards
    if len(value.wildcards) > at_start + (at_end and last > 0):
        raise FilterError(
            f"{quote(value.text)} has a * inside, and it works at either end only: "
            "move it, or write \\* in quotes for a star itself",
            value.position,
        )
    piece = value.text[1 if at_start else 0 : last if at_end else last + 1]
    if at_start and at_end:
        return BoundMatch(target, Place.ANYWHERE, piece)
    return BoundMatch(target, Place.END if at_start else Place.START, piece)


def _bind_search(literal: Literal, schema: FilterSchema) -> BoundFilter:
    if _is_star(literal):
        return BoundEverything()
    named = literal.text if literal.text in schema.fields else literal.text.split(".")[0]
    if not literal.quoted and named in schema.fields:
        raise FilterError(
            f"{named} is a field: compare it, as in {named}:* for «is present»; "
            "to search for the word, quote it",
            literal.position,
        )
    if not schema.searched:
        raise FilterError(
            f"{quote(literal.text)} has no field, and this listing searches none: write field = value; "
            f"fields are {', '.join(sorted(schema.fields))}",
            literal.position,
        )
    targets = [FieldTarget(name, schema.fields[name]) for name in schema.searched]
    if literal.wildcards:
        found: list[BoundFilter] = [_bind_pattern(target, literal) for target in targets]
    else:
        found = [BoundMatch(target, Place.ANYWHERE, literal.text) for target in targets]
    return found[0] if len(found) == 1 else BoundOr(tuple(found))


def _convert(target: Target, kind: FieldType, value: Literal) -> Value:
    match kind:
        case TextField() | NamesField():
            return value.text
        case IntegerField():
            return read_integer(value)
        case RealField():
            return read_real(value)
        case BooleanField():
            return read_boolean(value)
        case TimestampField():
            return read_timestamp(value)
        case DurationField():
            return read_duration(value)
        case EnumField():
            return _read_name(target, kind, value)
        case LabelsField():
            raise TypeError("a map of labels has no value of its own")


def _read_name(target: Target, kind: EnumField, value: Literal) -> str | int:
    stored = kind.stored(value.text)
    if stored is None:
        raise FilterError(
            f"{quote(value.text)} is no value of {_name(target)}: {suggest(value.text, kind.names())}",
            value.position,
        )
    return stored


def _is_star(literal: Literal) -> bool:
    return literal.text == "*" and bool(literal.wildcards)


def _name(target: Target) -> str:
    return target.name if isinstance(target, FieldTarget) else f"{target.field}.{target.key}"
