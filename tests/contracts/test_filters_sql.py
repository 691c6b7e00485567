"""A filter chooses in a database the very rows that it means; every backend passes this suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    insert,
    select,
)

from controlplane.filtering import read
from controlplane.filtering.grammar import MAX_COMPARISONS, MAX_DEPTH
from controlplane.storage.filters import LabelTable, compile_filter
from tests.unit.filtering.oracle import matches
from tests.unit.filtering.strategies import SCHEMA, Row, filter_texts, rows

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("agent_id", String, nullable=False),
    Column("hostname", String),
    Column("os_family", String),
    Column("priority", Integer),
    Column("load", Double),
    Column("clone", Boolean),
    Column("seen_time", BigInteger),
    Column("interval", BigInteger),
    Column("presence", String),
)
thing_labels = Table(
    "thing_labels",
    metadata,
    Column("thing_id", Integer, primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)
COLUMNS = {name: things.c[name.replace(".", "_")] for name in SCHEMA.fields if name != "labels"}
LABELS = LabelTable(things.c.id, thing_labels.c.thing_id, thing_labels.c.key, thing_labels.c.value)


@pytest.fixture(params=["sqlite://"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    engine = create_engine(request.param)
    with engine.connect() as opened:
        metadata.create_all(opened)
        yield opened
    engine.dispose()


def fill(connection: Connection, table: Sequence[Row]) -> None:
    connection.execute(delete(things))
    connection.execute(delete(thing_labels))
    for number, row in enumerate(table):
        labels = row["labels"]
        assert isinstance(labels, dict)
        values = {column.name: row[name] for name, column in COLUMNS.items()}
        connection.execute(insert(things).values(id=number, **values))
        for key, value in labels.items():
            connection.execute(insert(thing_labels).values(thing_id=number, key=key, value=value))


def chosen(connection: Connection, text: str) -> list[int]:
    condition = compile_filter(read(text, SCHEMA), COLUMNS, LABELS)
    return list(connection.scalars(select(things.c.id).where(condition).order_by(things.c.id)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(text=filter_texts, table=rows)
def test_the_database_chooses_what_the_filter_means(
    connection: Connection, text: str, table: list[Row]
) -> None:
    fill(connection, table)
    assert chosen(connection, text) == [
        number for number, row in enumerate(table) if matches(read(text, SCHEMA), row)
    ]


ABSENT: Row = dict.fromkeys(SCHEMA.fields) | {"agent_id": "", "labels": {}}


def row(**values: object) -> Row:
    return ABSENT | values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hostname = web", [0]),
        ("hostname != web", [1, 2, 3]),
        ("NOT hostname = web", [1, 2, 3]),
        ("hostname > WEB", [0, 2]),
        ("NOT hostname > WEB", [1, 3]),
        ("hostname = w*", [0]),
        ('hostname = "*_%"', [2]),
        ("hostname:*", [0, 1, 2]),
        ("labels.env = prod", [0]),
        ("labels.env != prod", [1, 2, 3]),
        ("labels.env:*", [0, 1]),
        ("NOT labels:env", [2, 3]),
        ("labels:*", [0, 1]),
        ("labels.env = (prod OR PROD)", [0, 1]),
        ("priority < 5000000000", [0]),
        ("web", [0, 3]),
        ("*", [0, 1, 2, 3]),
        ("NOT *", []),
        ("", [0, 1, 2, 3]),
    ],
)
def test_text_has_case_and_absence_is_not_a_value(
    connection: Connection, text: str, expected: list[int]
) -> None:
    fill(
        connection,
        [
            row(hostname="web", priority=1, labels={"env": "prod"}),
            row(hostname="WEB", labels={"env": "PROD"}),
            row(hostname="W_%"),
            row(agent_id="my web host"),
        ],
    )
    assert chosen(connection, text) == expected


def test_labels_are_those_of_the_row_where_the_statement_joins_them_too(connection: Connection) -> None:
    fill(connection, [row(labels={"env": "prod", "site": "a"}), row(labels={"env": "test", "site": "b"})])
    joined = select(thing_labels.c.value).join(things, things.c.id == thing_labels.c.thing_id)
    condition = compile_filter(read("labels.env = prod", SCHEMA), COLUMNS, LABELS)
    found = connection.scalars(joined.where(condition, thing_labels.c.key == "site"))
    assert list(found) == ["a"]


def test_a_filter_serves_an_update(connection: Connection) -> None:
    fill(connection, [row(labels={"env": "prod"}), row()])
    condition = compile_filter(read("labels.env = prod", SCHEMA), COLUMNS, LABELS)
    connection.execute(things.update().where(condition).values(priority=9))
    assert chosen(connection, "priority = 9") == [0]


@pytest.mark.parametrize("part", ["web", "labels.env != prod", "hostname = *a*"])
def test_the_largest_filter_is_one_that_the_database_takes(connection: Connection, part: str) -> None:
    fill(connection, [row(hostname="a web host"), row()])
    flat = " ".join([part] * (MAX_COMPARISONS - 1))
    nested = f"NOT ({part}"
    for _ in range(MAX_DEPTH - 1):
        nested = f"NOT ({nested})"
    assert set(chosen(connection, f"{flat} OR {nested})")) <= {0, 1}


def test_a_comparison_leaves_an_index_of_use() -> None:
    condition = compile_filter(read("presence = ONLINE", SCHEMA), COLUMNS, LABELS)
    assert "coalesce" not in str(condition)


def test_labels_without_a_table_are_a_defect() -> None:
    with pytest.raises(ValueError, match="labels"):
        compile_filter(read("labels:env", SCHEMA), COLUMNS)
