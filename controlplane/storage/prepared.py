"""Statements of the hot road: compiled once, and executed by the driver without SQLAlchemy's own part.

For a small statement that part is ten times what SQLite needs (``docs/decisions`` has the measurement):
a statement that is built for each call, its cache key, an execution context, a result. What is left here is
the text, named values, and rows with the columns' names. So a prepared statement takes and gives what the
driver knows: numbers, texts and bytes; a Boolean comes back as 0 or 1. Everything that is asked seldom, or
with a shape of its own such as a filter, stays with ``connection.execute``.
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Select, Table, bindparam, column, func, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable

from controlplane.storage import driver

_DIALECT = sqlite.dialect(paramstyle="named")


def each(name: str) -> Select[Any]:
    """Return the values of the list that is bound as ``name``, for ``column.in_(each(name))``.

    The text of the statement is the same for any number of values, so SQLite prepares it once.
    ``json_each`` is SQLite's alone.
    """
    return select(func.json_each(bindparam(name)).table_valued(column("value")).c.value)


def listed(values: Iterable[str]) -> str:
    """Return what to bind for ``each``."""
    return json.dumps(list(values))


class Prepared:
    """One statement. Values are bound by the names of its parameters.

    An insert or update that says no values sets ``columns``, each from a parameter of its name.
    """

    def __init__(self, statement: Executable, columns: Iterable[str] = ()) -> None:
        made: Any = statement
        compiled = made.compile(dialect=_DIALECT, column_keys=list(columns) or None)
        self.text = str(compiled)
        # Numbers that stand in the statement itself are bound too.
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        names = [entry.keyname for entry in compiled._result_columns]
        self._row: Any = namedtuple("Row", names) if names else None

    # The coroutines have names with an underscore: a statement is counted for who awaits these.

    def rows(self, connection: AsyncConnection, values: Mapping[str, Any]) -> Coroutine[Any, Any, list[Any]]:
        """Execute and return all rows, with the names of the statement's columns."""
        return self._rows(connection, values)

    def run(self, connection: AsyncConnection, values: Mapping[str, Any]) -> Coroutine[Any, Any, int]:
        """Execute and return how many rows it changed."""
        return self._run(connection, values)

    def run_each(
        self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]
    ) -> Coroutine[Any, Any, None]:
        """Execute once for each of ``rows``."""
        return self._run_each(connection, rows)

    async def _rows(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Any]:
        cursor = await _cursor(connection)
        try:
            await cursor.execute(self.text, {**self._constants, **values})
        except driver.Error as error:
            raise _wrapped(self.text, error) from error
        return [self._row._make(row) for row in await cursor.fetchall()]

    async def _run(self, connection: AsyncConnection, values: Mapping[str, Any]) -> int:
        cursor = await _cursor(connection)
        try:
            await cursor.execute(self.text, {**self._constants, **values})
        except driver.Error as error:
            raise _wrapped(self.text, error) from error
        return cursor.rowcount

    async def _run_each(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        cursor = await _cursor(connection)
        constants = self._constants
        try:
            await cursor.executemany(self.text, [{**constants, **row} for row in rows] if constants else rows)
        except driver.Error as error:
            raise _wrapped(self.text, error) from error


@cache
def updating(table: Table, key: str, columns: tuple[str, ...]) -> Prepared:
    """Return the update of ``columns`` in the row whose column ``key`` is the parameter of that name."""
    return Prepared(update(table).where(table.c[key] == bindparam(key)), columns)


async def _cursor(connection: AsyncConnection) -> driver.WholeResultCursor:
    if not connection.in_transaction():
        await connection.begin()
    cursor: driver.WholeResultCursor = driver.of(connection).cursor()
    return cursor


def _wrapped(text: str, error: driver.Error) -> Exception:
    # What SQLAlchemy's own part does; values are hidden, for errors reach logs.
    return DBAPIError.instance(text, None, error, driver.Error, hide_parameters=True, dialect=_DIALECT)
