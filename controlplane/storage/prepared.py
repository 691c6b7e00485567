"""Statements of the hot road: compiled once, and executed by the driver without SQLAlchemy's own part.

For a small statement that part is ten times what SQLite needs (``docs/decisions`` has the measurement):
a statement that is built for each call, its cache key, an execution context, a result. What is left here is
the text, named values, and rows with the columns' names. So a prepared statement takes and gives what the
drivers know: numbers, texts and bytes; a Boolean may come back as 0 or 1. Everything that is asked seldom, or
with a shape of its own such as a filter, stays with ``connection.execute``.

The same statement has one text for each backend. What is executed for each of many rows (``run_each``) is
on PostgreSQL one statement over arrays: a round trip, and one plan, for all of them.
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, BindParameter, Select, Table, bindparam, column, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import iterate, replacement_traverse
from sqlalchemy.types import NULLTYPE, NullType, String, Text, TypeEngine

from controlplane.storage import driver
from controlplane.storage.backends import BACKENDS, POSTGRESQL, SQLITE


class _listed_values(FunctionElement[str]):  # noqa: N801 - named as a function of SQL
    """A table with the column ``value`` of the texts in a list."""

    type = String()
    name = "listed_values"
    inherit_cache = True


@compiles(_listed_values, SQLITE)
def _listed_values_sqlite(element: _listed_values, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


@compiles(_listed_values, POSTGRESQL)
def _listed_values_postgresql(element: _listed_values, compiler: SQLCompiler, **kw: Any) -> str:
    # A subquery, since a function of one column names that column after its alias.
    return f"(SELECT unnest(CAST({compiler.process(element.clauses, **kw)} AS TEXT[])) AS value)"


def each(name: str) -> Select[Any]:
    """Return the texts of the list that is bound as ``name``, for ``column.in_(each(name))``.

    The text of the statement is the same for any number of values, so it is prepared once.
    """
    return select(_listed_values(bindparam(name)).table_valued(column("value")).c.value)


def listed(values: Iterable[str]) -> list[str]:
    """Return what to bind for ``each``."""
    return list(values)


class Prepared:
    """One statement. Values are bound by the names of its parameters.

    An insert or update that says no values sets ``columns``, each from a parameter of its name.
    """

    def __init__(self, statement: Executable, columns: Iterable[str] = ()) -> None:
        self._statement: Any = statement
        self._columns = tuple(columns)
        self._single: dict[str, _Form] = {}
        self._many: dict[str, _Form] = {}

    async def rows(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Any]:
        """Execute and return all rows, with the names of the statement's columns."""
        form = self._form(connection.dialect.name)
        own = await _driver(connection)
        try:
            found = await own.fetch(form.text, form.bound(values))
        except form.errors as error:
            raise _wrapped(form, error) from error
        return [form.row._make(row) for row in found]

    async def run(self, connection: AsyncConnection, values: Mapping[str, Any]) -> int:
        """Execute and return how many rows it changed."""
        form = self._form(connection.dialect.name)
        own = await _driver(connection)
        try:
            return await own.change(form.text, form.bound(values))
        except form.errors as error:
            raise _wrapped(form, error) from error

    async def run_each(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute for each of ``rows``, no two of which may change the same row of the table."""
        if not rows:
            return
        form = self._form_of_many(connection.dialect.name)
        own = await _driver(connection)
        try:
            if form.set_based:
                arrays = {name: [row[name] for row in rows] for name in form.set_based}
                await own.change(form.text, form.bound(arrays))
            else:
                await own.change_each(form.text, [form.bound(row) for row in rows])
        except form.errors as error:
            raise _wrapped(form, error) from error

    def _form(self, dialect: str) -> _Form:
        form = self._single.get(dialect)
        if form is None:
            form = self._single[dialect] = _Form(self._statement, self._columns, dialect)
        return form

    def _form_of_many(self, dialect: str) -> _Form:
        form = self._many.get(dialect)
        if form is None:
            if dialect == POSTGRESQL:
                statement, names = _over_arrays(self._statement, self._columns)
                form = _Form(statement, (), dialect, names)
            else:
                form = self._form(dialect)
            self._many[dialect] = form
        return form


class _Form:
    """The text of a statement for one backend."""

    def __init__(
        self, statement: Any, columns: Sequence[str], dialect: str, set_based: Sequence[str] = ()
    ) -> None:
        backend = BACKENDS[dialect]
        self.dialect = backend.dialect
        self.errors = backend.errors
        self.set_based = set_based
        compiled = statement.compile(dialect=backend.dialect, column_keys=list(columns) or None)
        self.text = str(compiled)
        # Numbers that stand in the statement itself are bound too.
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        # Most take no list: they get the rows as they are, without a look at each value.
        self._lists_as_json = dialect == SQLITE and "json_each" in self.text
        names = [entry.keyname for entry in compiled._result_columns]
        self.row: Any = namedtuple("Row", names) if names else None

    def bound(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what to give the driver."""
        if self._lists_as_json:
            values = {
                name: json.dumps(value) if type(value) is list else value for name, value in values.items()
            }
        return {**self._constants, **values} if self._constants else values


def _over_arrays(statement: Any, columns: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """Return an insert or update of PostgreSQL that takes an array for each parameter, and their names."""
    asked = _types_of_parameters(statement, columns)
    arrays = [bindparam(name, type_=ARRAY(kind)) for name, kind in asked.items()]
    given = (
        func.unnest(*arrays)
        .table_valued(*(column(name, kind) for name, kind in asked.items()))
        .render_derived(name="given")
    )
    if isinstance(statement, Insert):
        return statement.from_select(list(columns), select(*(given.c[name] for name in columns))), (*asked,)

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, BindParameter) and element.required:
            return given.c[element.key]
        return None

    replaced: Any = replacement_traverse(statement, {}, replace)
    return (replaced.values({name: given.c[name] for name in columns}) if columns else replaced), (*asked,)


def _types_of_parameters(statement: Any, columns: Sequence[str]) -> dict[str, TypeEngine[Any]]:
    types = {name: statement.table.c[name].type for name in columns}
    # A parameter has its type from what it is compared with; one that is set, from its column.
    compared = [
        element for element in iterate(statement) if isinstance(element, BindParameter) and element.required
    ]
    assigned = [
        (value.key, statement.table.c[getattr(target, "name", target)].type)
        for target, value in (statement._values or {}).items()
        if isinstance(value, BindParameter) and value.required
    ]
    for name, kind in (*((element.key, element.type) for element in compared), *assigned):
        if isinstance(types.get(name, NULLTYPE), NullType):
            types[name] = kind
    # A cast to VARCHAR(n) would cut a text that is too long, where the column itself refuses it.
    return {name: Text() if isinstance(kind, String) else kind for name, kind in types.items()}


@cache
def updating(table: Table, key: str, columns: tuple[str, ...]) -> Prepared:
    """Return the update of ``columns`` in the row whose column ``key`` is the parameter of that name."""
    return Prepared(update(table).where(table.c[key] == bindparam(key)), columns)


async def _driver(connection: AsyncConnection) -> driver.DriverConnection:
    if not connection.in_transaction():
        await connection.begin()
    return driver.of(connection)


def _wrapped(form: _Form, error: Exception) -> Exception:
    # What SQLAlchemy's own part does; values are hidden, for errors reach logs.
    return DBAPIError.instance(
        form.text, None, error, form.errors, hide_parameters=True, dialect=form.dialect
    )
