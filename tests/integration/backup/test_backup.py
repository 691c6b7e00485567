"""Taking a backup: of a server under load, to a good place, to a bad one, and to a full disk."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry

from controlplane.storage.backup import restoring, taking
from controlplane.storage.backup.errors import BackupError
from tests.integration.backup.commands import PROGRAM, command
from tests.integration.backup.conftest import NOON, Content
from tests.support.admin import Admin
from tests.support.fleet import Effects, Fleet
from tests.support.folders import Tables, make_folder, tables
from tests.support.process import ServerProcess, environment, running
from tests.support.site import HOST, enroll
from tests.support.streams import until

AGENTS = 8
BEFORE = 60
"""Tasks that are acknowledged before the backup begins."""

SETTINGS: dict[str, Any] = {"telemetry_interval": "100ms", "last_seen_flush": "200ms"}


class Books:
    """What the server has acknowledged, kept outside of it."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.enough = asyncio.Event()

    async def create(self, admin: Admin) -> None:
        """Create tasks until cancelled."""
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while True:
                number = len(self.created)
                task = await admin.create(f"node-{number % AGENTS}", b"%d" % number)
                self.created.append(task.name.removeprefix("tasks/"))
                if len(self.created) >= BEFORE:
                    self.enough.set()


def column(found: Tables, folder: Path, table: str, name: str) -> set[Any]:
    with closing(sqlite3.connect(f"file:{folder / 'fleetwright.db'}?mode=ro", uri=True)) as connection:
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return {row[names.index(name)] for row in found[table]}


@pytest.mark.slow
async def test_a_backup_under_load_is_one_commit_that_has_all_that_was_acknowledged_before_it(
    folder: Path, tmp_path: Path
) -> None:
    books, effects, target = Books(), Effects(tmp_path / "effects"), tmp_path / "b.tar.gz"
    async with running(folder, **SETTINGS) as server:
        _, token = await server.admin().token(max_uses=AGENTS)
        identities = [await enroll(server.enrollment(), f"node-{number}", token) for number in range(AGENTS)]
        fleet = Fleet(identities, f"{HOST}:{server.ports.agents}", effects)
        creating = asyncio.create_task(books.create(server.admin()))
        await books.enough.wait()
        created, results, points = list(books.created), set(fleet.results), set(fleet.points)
        before = tables(folder)

        status, out, errors = await asyncio.to_thread(
            command, "backup", target, "--data-dir", folder, "-o", "json"
        )
        assert (status, errors) == (0, "")

        after = tables(folder)
        assert len(books.created) > len(created), "nothing was written while the backup was taken"
        restoring.restore(tmp_path / "new", target, now=NOON)
        restored = tables(tmp_path / "new")
        assert set(before) == set(restored)
        for table, rows in restored.items():
            assert set(before[table]) & set(after[table]) <= set(rows), (
                f"{table}: a row of before is not there"
            )
        assert set(created) <= column(restored, tmp_path / "new", "tasks", "task_id")
        assert results <= column(restored, tmp_path / "new", "task_attempts", "attempt_id")
        assert points <= column(restored, tmp_path / "new", "telemetry_points", "value")
        counted = max(column(restored, tmp_path / "new", "commit_counter", "value"))
        for table in ("tasks", "agents"):
            assert max(column(restored, tmp_path / "new", table, "revision")) <= counted
        creating.cancel()
        await creating
        ports = server.ports
        await server.terminate()

    async with running(tmp_path / "new", ports, **SETTINGS) as second:
        await everyone_online(second)
        task = await second.admin().create("node-0", b"afterwards")
        assert (await second.admin().task_ended(task.name)).result.echo.payload == b"afterwards"
        await fleet.stop()
    effects.close()
    described = json.loads(out)
    assert described["path"] == str(target)
    assert described["keys"] is True
    assert described["schema"] in {str(row[0]) for row in restored["alembic_version"]}


async def everyone_online(server: ServerProcess) -> None:
    """Wait until every agent has a session."""
    watch = server.admin().agents.WatchAgents(registry.WatchAgentsRequest())
    online: set[str] = set()

    def all_there(change: Any) -> bool:
        if change.agent.presence == registry.PRESENCE_ONLINE:
            online.add(change.agent.name)
        return len(online) == AGENTS

    await until(watch, all_there)
    watch.cancel()


async def test_a_backup_of_a_server_at_rest_has_every_row_of_every_table(
    folder: Path, tmp_path: Path
) -> None:
    quiet = {"last_seen_flush": "1h", "presence_sweep": "1h", "process_renewal": "1h", "process_lease": "3h"}
    async with running(folder, None, **quiet) as server:
        _, token = await server.admin().token(max_uses=5)
        for number in range(5):
            await server.enroll(f"node-{number}", token)
            await server.admin().create(f"node-{number}", b"x")
        before = tables(folder)
        assert (await asyncio.to_thread(command, "backup", tmp_path / "b.tar", "--data-dir", folder))[0] == 0
        restoring.restore(tmp_path / "new", tmp_path / "b.tar", now=NOON)
        assert tables(tmp_path / "new") == before == tables(folder)


def test_a_backup_is_secret_and_says_so(folder: Path, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        status, out, _ = command("backup", str(tmp_path / "b.tar"), "--data-dir", str(folder))
        assert (status, "keep it as secret as the data folder" in out) == (0, True)
        status, out, _ = command(
            "backup", str(tmp_path / "c.tar"), "--data-dir", str(folder), "--without-keys"
        )
        assert (status, "no keys are in it" in out) == (0, True)
    finally:
        os.umask(previous)
    for name in ("b.tar", "c.tar"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_folder_as_target_gets_a_name_with_the_time(folder: Path, tmp_path: Path) -> None:
    taken = taking.take(folder, tmp_path, product="1", now=NOON)
    assert taken.path == tmp_path / "fleetwright-20261123T120000Z.tar"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", taken.path.name]


def test_a_compact_backup_has_every_row_and_no_free_space(folder: Path, tmp_path: Path) -> None:
    with sqlite3.connect(folder / "fleetwright.db") as connection:
        connection.execute("CREATE TABLE weight (x BLOB)")
        connection.executemany("INSERT INTO weight VALUES (randomblob(?))", [(2**20,)] * 20)
        connection.execute("DELETE FROM weight WHERE rowid > 2")
    connection.close()
    plain = taking.take(folder, tmp_path / "plain.tar", product="1", now=NOON)
    looks: list[tuple[int, int]] = []
    compact = taking.take(
        folder,
        tmp_path / "compact.tar",
        product="1",
        now=NOON,
        compact=True,
        progress=lambda what, done, total: looks.append((done, total)) if what == "copying" else None,
    )
    assert compact.size < plain.size / 5
    assert all(done <= total for done, total in looks)
    assert looks[-1][0] == looks[-1][1]
    restoring.restore(tmp_path / "new", compact.path, now=NOON)
    assert tables(tmp_path / "new") == tables(folder)


def test_another_tar_reads_it(folder: Path, tmp_path: Path) -> None:
    for name, option in (("b.tar", "-tf"), ("b.tgz", "-tzf")):
        taken = taking.take(folder, tmp_path / name, product="1", now=NOON)
        listed = subprocess.run(["tar", option, taken.path], capture_output=True, text=True, check=True)
        names = ["manifest.json", *(entry.name for entry in taken.manifest.entries)]
        assert listed.stdout.splitlines() == names


def test_what_is_there_is_not_replaced_without_force(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    target.write_text("mine")
    with pytest.raises(BackupError, match="exists already; choose another name, or replace it with --force"):
        taking.take(folder, target, product="1", now=NOON)
    assert target.read_text() == "mine"
    taking.take(folder, target, product="1", now=NOON, force=True)
    assert restoring.describe(target).product == "1"


def test_two_backups_to_one_place_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    def meanwhile(_what: str, _done: int, _total: int) -> None:
        with pytest.raises(BackupError, match="another backup is being written there"):
            taking.take(folder, tmp_path / "b.tar", product="2", now=NOON)

    taken = taking.take(folder, tmp_path / "b.tar", product="1", now=NOON, progress=meanwhile)
    assert restoring.describe(taken.path).product == "1"


def test_what_a_killed_backup_left_is_gone_after_the_next(folder: Path, tmp_path: Path) -> None:
    left = tmp_path / ".b.tar.part"
    left.mkdir()
    (left / "fleetwright.db").write_bytes(b"half")
    taking.take(folder, tmp_path / "b.tar", product="1", now=NOON)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere/b.tar", "nowhere: there is no such folder; make it, or choose another"),
        ("data/server.key/b.tar", "there is no such folder"),
    ],
)
def test_a_place_that_is_none_is_refused(target: str, said: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=said):
        taking.take(folder, tmp_path / target, product="1", now=NOON)


def test_a_folder_without_a_database_is_refused(tmp_path: Path) -> None:
    status, out, errors = command("backup", str(tmp_path / "b.tar"), "--data-dir", str(tmp_path / "no"))
    assert (status, out) == (1, "")
    assert errors == (
        f"error: data folder {tmp_path / 'no'}: there is no fleetwright.db in it; name the right one with "
        "--data-dir, or start the server once\n"
    )


def test_a_damaged_database_is_no_backup(folder: Path, tmp_path: Path) -> None:
    database = bytearray((folder / "fleetwright.db").read_bytes())
    database[4096:8192] = bytes(range(256)) * 16
    (folder / "fleetwright.db").write_bytes(database)
    with pytest.raises(BackupError, match="put back the last good backup"):
        taking.take(folder, tmp_path / "b.tar", product="1", now=NOON)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


SMALL = 290
"""Blocks of 512 bytes: less than the file of a server has."""


def test_where_files_may_not_grow_it_fails_with_one_message_and_leaves_nothing(
    folder: Path, tmp_path: Path, content: Callable[[Path], Content]
) -> None:
    before = content(folder)
    status, out, errors = command(
        "backup", str(tmp_path / "b.tar"), "--data-dir", str(folder), file_blocks=SMALL
    )
    assert (status, out) == (1, "")
    assert errors.startswith(f"error: {tmp_path}: ")
    assert errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert content(folder) == before


FULL = """
set -e
mount -t tmpfs -o size={size}k none {disk}
set +e
{program} {arguments} >out 2>errors
echo $? >status
ls -A {disk} >left
"""


def on_a_small_disk(tmp_path: Path, size: int, *arguments: str) -> tuple[int, str, list[str]]:
    """Run ``fleetwright`` where ``tmp_path / "disk"`` has ``size`` KiB; return status, errors, what is left.

    A mount of its own, in a user namespace: no privilege is needed, where the kernel allows those.
    """
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system allows no user namespaces")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = FULL.format(size=size, disk=disk, program=PROGRAM, arguments=" ".join(arguments))
    subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, env=environment({}), check=True)
    return (
        int((tmp_path / "status").read_text()),
        (tmp_path / "errors").read_text(),
        (tmp_path / "left").read_text().split(),
    )


# Too small for the copy of the database, and for the archive beside it.
@pytest.mark.parametrize("size", [100, 300])
def test_a_full_disk_is_told_and_nothing_is_left_on_it(size: int, folder: Path, tmp_path: Path) -> None:
    status, errors, left = on_a_small_disk(
        tmp_path, size, "backup", str(tmp_path / "disk/b.tar"), "--data-dir", str(folder)
    )
    assert (status, left) == (1, [])
    assert errors == (
        f"error: {tmp_path / 'disk'}: the disk is full; nothing is left of what was written: free some "
        "space, or choose another disk\n"
    )


def test_a_disk_too_small_for_a_restore_is_told_and_nothing_is_left_on_it(good: Path, tmp_path: Path) -> None:
    status, errors, left = on_a_small_disk(
        tmp_path, 100, "restore", str(good), "--data-dir", str(tmp_path / "disk/new")
    )
    assert (status, left) == (1, [])
    assert "MiB are needed and 0 MiB are free; free some space" in errors


@pytest.mark.parametrize("options", [[], ["--compact"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_that_is_ended_leaves_nothing(
    number: signal.Signals, options: list[str], tmp_path: Path
) -> None:
    folder, target = make_folder(tmp_path / "data"), tmp_path / "to"
    with sqlite3.connect(folder / "fleetwright.db") as connection:
        connection.execute("CREATE TABLE weight (x BLOB)")
        connection.executemany("INSERT INTO weight VALUES (randomblob(?))", [(2**20,)] * 60)
    connection.close()
    target.mkdir()
    arguments = [PROGRAM, "backup", str(target / "b.tar.gz"), "--data-dir", str(folder), *options]
    with subprocess.Popen(arguments, env=environment({}), stderr=subprocess.PIPE) as process:
        while not list(target.glob(".*/fleetwright.db")):
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert b"Traceback" not in errors
    assert list(target.iterdir()) == []
