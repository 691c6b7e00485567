"""Migrations on real database files: every revision up to the next, and nothing half done."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import controlplane.bootstrap  # noqa: F401 - through it every room declares its tables
from controlplane.agents.rules import bucket
from controlplane.storage.migrate import NewerDatabaseError, head, revisions, upgrade
from controlplane.storage.schema import metadata
from controlplane.tasks.rules import BatchState

Rows = dict[str, list[dict[str, object]]]


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    return connection


def tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return sorted(row["name"] for row in found if not row["name"].startswith(("sqlite_", "alembic_")))


def fill(path: Path) -> None:
    """Insert a row of telling values into every table that has none."""
    with connect(path) as connection:
        for table in tables(connection):
            if connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]:
                continue
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            values = {column["name"]: _value(column["name"], column["type"]) for column in columns}
            names, marks = ", ".join(f'"{name}"' for name in values), ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))
    connection.close()


def _value(name: str, kind: str) -> object:
    if kind.startswith(("VARCHAR", "TEXT")):
        return f"text of {name}"
    if kind == "BLOB":
        return name.encode()
    if kind == "JSON":
        return '{"a": "b"}'
    return 1


def content(path: Path) -> Rows:
    with connect(path) as connection:
        found: Rows = {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for table in tables(connection)
        }
    connection.close()
    return found


@pytest.mark.parametrize(("before", "after"), list(zip(revisions(), revisions()[1:], strict=False)))
def test_what_was_there_before_a_revision_is_there_after_it(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "old.db"
    assert upgrade(path, before) == (None, before)
    fill(path)
    old = content(path)
    assert all(old.values())
    assert upgrade(path, after) == (before, after)
    new = content(path)
    for table, rows in old.items():
        kept = [{name: row[name] for name in rows[0]} for row in new[table]]
        assert kept == rows, table


def test_the_first_schema_comes_up_to_this_one_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    upgrade(path, revisions()[0])
    fill(path)
    old = content(path)
    assert upgrade(path) == (revisions()[0], head())
    new = content(path)
    for table, rows in old.items():
        kept = [{name: row[name] for name in rows[0]} for row in new[table]]
        assert kept == rows, table


def test_agents_that_are_there_get_the_place_that_their_id_gives_them(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    upgrade(path, "0006")
    fill(path)
    upgrade(path)
    (agent,) = content(path)["agents"]
    assert agent["bucket"] == bucket(str(agent["agent_id"]))


def test_batches_that_are_there_have_made_all_their_tasks(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    upgrade(path, "0006")
    fill(path)
    upgrade(path)
    (batch,) = content(path)["task_batches"]
    assert batch["state"] == BatchState.EXPANDED
    assert batch["target_count"] == batch["expanded_count"] == batch["task_count"]


def test_the_copy_of_the_tasks_table_keeps_indexes_references_and_specs(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    upgrade(path, "0003")
    fill(path)
    with connect(path) as connection:
        connection.execute("UPDATE tasks SET batch_id = NULL, spec = X'00FF'")
        connection.execute("UPDATE task_attempts SET task_id = (SELECT task_id FROM tasks)")
        connection.execute("UPDATE task_output SET attempt_id = (SELECT attempt_id FROM task_attempts)")
    connection.close()
    before, old = _indexes(path), content(path)
    assert "WHERE state < 4" in before["ix_tasks_open_by_agent"]
    upgrade(path, "0004")
    assert _indexes(path) == before
    assert content(path) == old
    with connect(path) as connection:
        wrong = {row["table"] for row in connection.execute("PRAGMA foreign_key_check")}
        assert not wrong & {"tasks", "task_attempts", "task_output"}
        assert [row["table"] for row in connection.execute("PRAGMA foreign_key_list(task_attempts)")] == [
            "tasks"
        ]
        with pytest.raises(sqlite3.IntegrityError, match="ck_tasks_spec"):
            connection.execute("UPDATE tasks SET spec = NULL")
        connection.execute("UPDATE tasks SET spec = NULL, batch_id = (SELECT batch_id FROM task_batches)")
    connection.close()


def _indexes(path: Path) -> dict[str, str]:
    with connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''")
        found = {row["name"]: row["sql"] for row in rows}
    connection.close()
    return found


def test_the_migrations_make_the_schema_that_the_rooms_declare(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    upgrade(path)
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_database_of_today_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert upgrade(path) == (None, head())
    fill(path)
    before = path.read_bytes()
    assert upgrade(path) == (head(), head())
    assert path.read_bytes() == before


def test_a_database_of_a_newer_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    upgrade(path)
    with connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NewerDatabaseError) as refused:
        upgrade(path)
    assert "newer.db has schema 9999" in str(refused.value)
    assert "Update fleetwright, or restore a backup" in str(refused.value)
    assert path.read_bytes() == before


def test_an_upgrade_that_fails_leaves_the_old_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    upgrade(path, revisions()[0])
    fill(path)
    before = content(path)

    def breaks_after(*arguments: object) -> None:
        # Everything but the last step has been done by then.
        real(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("the power failed")

    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", breaks_after)
    with pytest.raises(RuntimeError, match="power"):
        upgrade(path)
    monkeypatch.undo()
    assert content(path) == before
    assert upgrade(path) == (revisions()[0], head())


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(b"something else entirely, and long enough to be looked at" * 20)
    before = path.read_bytes()
    with pytest.raises(Exception, match="file is not a database"):
        upgrade(path)
    assert path.read_bytes() == before


def test_a_path_with_signs_of_a_url_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "what? 100%25 #1.db"
    upgrade(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
