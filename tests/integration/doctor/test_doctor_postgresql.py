"""The doctor and the tools of a data folder, where the site's database is PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.storage.location import Postgres
from controlplane.storage.migrate import upgrade
from devtools.postgres import PostgresServer
from tests.integration.doctor.asking import Doctor
from tests.support.process import environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as started:
        yield started


@pytest.fixture
def url(server: PostgresServer, doctor: Doctor) -> Iterator[str]:
    made = server.create_database("site")
    doctor.set(database_url=made)
    yield made
    server.drop_database("site")


def test_a_fresh_database_and_a_migrated_one_are_fine(doctor: Doctor, folder: Path, url: str) -> None:
    before = doctor.ask("--data-dir", folder)
    assert before.one("schema") == ("OK", "there is none yet: the server makes it at its first start")
    upgrade(Postgres(url))
    after = doctor.ask("--data-dir", folder)
    assert {after.one(check)[0] for check in ("database", "durability", "schema", "clock")} == {"OK"}
    assert "PostgreSQL 18" in after.one("database")[1]


def test_a_server_that_is_not_there_is_said_without_its_password(doctor: Doctor, folder: Path) -> None:
    doctor.set(database_url="postgresql://fleet:s3cret@127.0.0.1:1/site")
    level, words = doctor.ask("--data-dir", folder).one("database")
    assert level == "FAIL"
    assert "look whether the server runs" in words
    assert "s3cret" not in words


def test_a_server_that_does_not_wait_for_its_disk_is_a_failure(doctor: Doctor, folder: Path) -> None:
    with PostgresServer({"fsync": "off"}) as careless:
        doctor.set(database_url=careless.url())
        found = doctor.ask("--data-dir", folder).one("durability")
    assert found == ("FAIL", "fsync off: what is acknowledged is lost at a power cut")


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_copies_of_a_data_folder_are_not_taken_for_copies_of_the_site(
    command: str, folder: Path, server: PostgresServer
) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("fleetwright"), command, "site.tar", "--data-dir", str(folder)],
        env=environment({"FLEETWRIGHT_DATABASE_URL": server.url()}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pg_dump" in done.stderr
    assert server.url() not in done.stderr
