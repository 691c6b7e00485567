"""A server that cannot start says why and what to do; one whose disk fills lives on."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from controlplane.preflight import RESERVED_FILES, StartRefused, check_folder
from controlplane.transport.listeners import Ports
from controlplane.trust.layout import DATABASE
from tests.integration.transport.doors import refusal
from tests.support.folders import copy_folder
from tests.support.process import refused_start, running, settings_of
from tests.support.site import HOST

NOBODY = 65534
MIB = 1024 * 1024


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    """Mount something at ``where`` for a block; skips where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    where.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(where)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Make a mount read-only."""
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    yield


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that any user may enter, which the folders of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="fleetwright-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


async def says(folder: Path, *words: str, preexec: Callable[[], None] | None = None) -> None:
    """Check that a start fails, in words for people that have ``words``."""
    status, text = await refused_start(settings_of(folder), preexec)
    assert status == 1, text
    assert "Traceback" not in text
    for word in words:
        assert word in text


async def test_a_second_server_on_the_folder_is_told_of_the_first(folder: Path) -> None:
    async with running(folder) as first:
        await says(folder, "another server uses it", f"process {first.pid}", "data folder of its own")
        await first.admin().all_tasks()


async def test_a_port_in_use_is_named_with_its_setting(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, text = await refused_start(settings_of(folder, Ports(0, port, 0, 0)))
    assert status == 1
    assert str(port) in text
    assert "FLEETWRIGHT_ADMIN_PORT" in text
    assert "Traceback" not in text
    async with running(folder):
        pass


async def test_too_few_open_files_are_named_with_how_many_agents_fit(folder: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1500, 1500))

    fit = f"fits {1500 - RESERVED_FILES} agents"
    await says(folder, fit, "LimitNOFILE", "FLEETWRIGHT_MAX_AGENTS", preexec=limit)


async def test_a_folder_that_was_never_made_is_told_of_init(tmp_path: Path) -> None:
    await says(tmp_path / "none", "fleetwright init")
    (tmp_path / "empty").mkdir()
    await says(tmp_path / "empty", "fleetwright init")


async def test_a_newer_database_is_refused_untouched(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_future'")
    before = (folder / DATABASE).read_bytes()
    await says(folder, "9999_future", "newer", "Update fleetwright")
    assert (folder / DATABASE).read_bytes() == before


async def test_a_read_only_mount_is_named(folder: Path, tmp_path: Path) -> None:
    # A bind mount takes its options in a second step.
    with mounted(tmp_path / "place", "--bind", str(folder)) as place, read_only(place):
        await says(place, "mounted read-only", "mount it read-write")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads, from 3.12 on
def test_a_folder_that_this_user_may_not_write_is_named_with_the_user(folder: Path, scratch: Path) -> None:
    """Root may write everything, so as root the check is made as nobody, in a process of its own.

    A fork, not a program: nobody may not be able to read the interpreter.
    """
    root = os.geteuid() == 0
    place = copy_folder(folder, scratch / "data")
    if root:
        for path in (place, *place.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    place.chmod(0o500)
    user = NOBODY if root else os.geteuid()
    said, saying = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if root:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            check_folder(place)
        except StartRefused as refused:
            os.write(saying, str(refused).encode())
        finally:
            os._exit(0)
    os.close(saying)
    os.waitpid(child, 0)
    with os.fdopen(said) as answer:
        text = answer.read()
    assert f"user {user} may not write it" in text
    assert "change its owner or mode" in text
    place.chmod(0o700)


async def test_a_full_disk_is_named_with_what_is_needed(folder: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as disk:
        await says(copy_folder(folder, disk / "data"), "disk is full", "64 MiB", "free some space")


async def test_a_disk_that_fills_up_refuses_what_it_cannot_keep_and_goes_on_once_there_is_room(
    folder: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=80m", "tmpfs") as disk:
        async with running(copy_folder(folder, disk / "data")) as server:
            admin = server.admin()
            _, token = await admin.token()
            agent = await server.enroll("node-1", token)
            ballast = disk / "ballast"
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - MIB)
            kept = []
            refused = None
            while refused is None:
                try:
                    kept.append((await admin.create(agent.agent_id, bytes(64 * 1024))).name)
                except grpc.aio.AioRpcError:
                    refused = await refusal(admin.create(agent.agent_id, bytes(64 * 1024)))
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert "full" in refused.text
            assert {task.name for task in await admin.all_tasks()} == set(kept)
            ballast.unlink()
            kept.append((await admin.create(agent.agent_id)).name)
            assert {task.name for task in await admin.all_tasks()} == set(kept)
            session = await agent.come()
            await session.stream.expect("work_available")
