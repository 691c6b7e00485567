"""Bound filters as SQL that gives the same answer on SQLite and on PostgreSQL.

Text is compared byte for byte and ordered by code point; patterns are pieces of
text at a place, never LIKE, which ignores case on SQLite and not on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Integer,
    SQLColumnExpression,
    String,
    and_,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

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
    Value,
)
from controlplane.filtering.schema import (
    BooleanField,
    IntegerField,
    LabelsField,
    NamesField,
    RealField,
    TextField,
)
from controlplane.filtering.tree import Operator

Columns = Mapping[str, SQLColumnExpression[Any]]

_COMPARE: Mapping[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQUAL: eq,
    Operator.LESS: lt,
    Operator.LESS_OR_EQUAL: le,
    Operator.GREATER: gt,
    Operator.GREATER_OR_EQUAL: ge,
}


@dataclass(frozen=True)
class LabelTable:
    """The side table of a map of labels: a row for each key of each owner.

    ``listed`` is the id in the table that is filtered; ``owner``, ``key`` and
    ``value`` are columns of the side table. No two rows share owner and key.
    """

    listed: SQLColumnExpression[Any]
    owner: Column[Any]
    key: Column[str]
    value: Column[str]


@dataclass(frozen=True)
class NameTable:
    """The side table of a set of names: a row for each name of each owner; as ``LabelTable``."""

    listed: SQLColumnExpression[Any]
    owner: Column[Any]
    name: Column[str]


class by_code_point(FunctionElement[str]):  # noqa: N801 - named as the function that it is in a statement
    """A text whose order is that of its code points, whatever the database's collation is."""

    type = String()
    inherit_cache = True


class occurrence(FunctionElement[int]):  # noqa: N801 - as above
    """``occurrence(text, piece)``: where the piece first stands in the text, from 1; 0 if nowhere."""

    type = Integer()
    inherit_cache = True


@compiles(by_code_point, "sqlite")
def _by_code_point_sqlite(element: by_code_point, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)} COLLATE BINARY)"


@compiles(by_code_point, "postgresql")
def _by_code_point_postgresql(element: by_code_point, compiler: SQLCompiler, **kw: Any) -> str:
    return f'({compiler.process(element.clauses, **kw)} COLLATE "C")'


@compiles(occurrence, "sqlite")
def _occurrence_sqlite(element: occurrence, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kw)})"


@compiles(occurrence, "postgresql")
def _occurrence_postgresql(element: occurrence, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)})"


def compile_filter(
    bound: BoundFilter,
    columns: Columns,
    labels: LabelTable | None = None,
    names: Mapping[str, NameTable] | None = None,
) -> ColumnElement[bool]:
    """Return the condition of a filter, for a WHERE clause.

    ``columns`` has a column for every field of the schema except its labels and its
    sets of names, which ``names`` has a table for.
    For a row that does not match, the condition is false or NULL, which WHERE
    treats alike; to turn a filter round, bind a ``BoundNot``. Raises KeyError
    for a field without a column or table, and ValueError for labels without a table.
    """
    return _Compiler(columns, labels, names or {}).condition(bound)


@dataclass(frozen=True)
class _Compiler:
    columns: Columns
    labels: LabelTable | None
    names: Mapping[str, NameTable]

    def condition(self, bound: BoundFilter, *, negated: bool = False) -> ColumnElement[bool]:
        """Return the condition, or its opposite, with every negation at a leaf.

        NULL counts as false in AND, OR and WHERE anyway; only beneath NOT does
        it have to be made false, and only there is the index of a column lost.
        """
        match bound:
            case BoundNot(part):
                return self.condition(part, negated=not negated)
            case BoundAnd(parts) | BoundOr(parts):
                conditions = [self.condition(part, negated=negated) for part in parts]
                return and_(*conditions) if isinstance(bound, BoundAnd) != negated else or_(*conditions)
            case BoundEverything():
                return false() if negated else true()
            case BoundComparison() | BoundMatch() | BoundPresence():
                leaf = self._leaf(bound)
                return not_(func.coalesce(leaf, false())) if negated else leaf

    def _leaf(self, bound: BoundComparison | BoundMatch | BoundPresence) -> ColumnElement[bool]:
        target = bound.target
        if isinstance(target, LabelTarget):
            return self._label(target.key, bound)
        if isinstance(target.type, LabelsField):
            return self._label(None, bound)
        if isinstance(target.type, NamesField):
            return self._name(target.name, bound)
        return _test(self.columns[target.name], bound)

    def _label(
        self, key: str | None, bound: BoundComparison | BoundMatch | BoundPresence
    ) -> ColumnElement[bool]:
        if self.labels is None:
            raise ValueError("the schema has labels: compile_filter needs their table")
        # An alias of its own keeps the subquery whole where the statement itself joins the labels.
        side = self.labels.owner.table.alias()
        conditions = [side.c[self.labels.owner.key] == self.labels.listed]
        if key is not None:
            conditions.append(side.c[self.labels.key.key] == literal(key, String()))
        if not isinstance(bound, BoundPresence):
            conditions.append(_test(side.c[self.labels.value.key], bound))
        return exists().where(and_(*conditions)).correlate_except(side)

    def _name(self, field: str, bound: BoundComparison | BoundMatch | BoundPresence) -> ColumnElement[bool]:
        table = self.names[field]
        side = table.owner.table.alias()
        conditions = [side.c[table.owner.key] == table.listed]
        if not isinstance(bound, BoundPresence):
            conditions.append(_test(side.c[table.name.key], bound))
        return exists().where(and_(*conditions)).correlate_except(side)


def _test(
    column: SQLColumnExpression[Any], bound: BoundComparison | BoundMatch | BoundPresence
) -> ColumnElement[bool]:
    match bound:
        case BoundComparison(_, operator, value):
            return _comparison(column, operator, value)
        case BoundMatch(_, place, piece):
            return _match(column, place, piece)
        case BoundPresence(target):
            return _presence(column, target)


def _comparison(column: SQLColumnExpression[Any], operator: Operator, value: Value) -> ColumnElement[bool]:
    ordered = isinstance(value, str) and operator is not Operator.EQUAL
    side: Any = by_code_point(column) if ordered else column
    condition: ColumnElement[bool] = _COMPARE[operator](side, _parameter(value))
    return condition


def _parameter(value: Value) -> ColumnElement[Any]:
    """Return a bound parameter that is as wide as the language: a 32-bit column must not narrow it."""
    if isinstance(value, bool):
        return literal(value, Boolean())
    if isinstance(value, int):
        return literal(value, BigInteger())
    if isinstance(value, float):
        return literal(value, Double())
    return literal(value, String())


def _match(column: SQLColumnExpression[Any], place: Place, piece: str) -> ColumnElement[bool]:
    if not piece:
        return column.is_not(None)
    text, size = literal(piece, String()), literal(len(piece), Integer())
    match place:
        case Place.START:
            return func.substr(column, literal(1, Integer()), size) == text
        case Place.END:
            # Counted from the front: a negative start means different things to the two databases.
            first = func.length(column) - size + literal(1, Integer())
            return and_(func.length(column) >= size, func.substr(column, first) == text)
        case Place.ANYWHERE:
            return occurrence(column, text) > 0


def _presence(column: SQLColumnExpression[Any], target: FieldTarget | LabelTarget) -> ColumnElement[bool]:
    match target:
        case FieldTarget(type=TextField()):
            return column != literal("", String())
        case FieldTarget(type=IntegerField() | RealField()):
            return column != 0
        case FieldTarget(type=BooleanField()):
            return column == literal(True, Boolean())
        case _:
            return column.is_not(None)
