"""Nothing of a job outlives it: no process, no folder, whoever is killed."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.isolation.scratch import Scratch, sweep
from tests.unit.packaging.isolation.attempts import ROOT, SMALL, attempt, call
from tests.unit.packaging.isolation.test_isolation_reach import processes_called

pytestmark = pytest.mark.slow


def left(settings: IsolationSettings) -> list[Path]:
    return list(settings.scratch_root.iterdir())


async def test_a_cancelled_job_leaves_nothing(settings: IsolationSettings) -> None:
    name, said = f"fwc-{os.getpid()}", asyncio.Event()
    task = asyncio.create_task(
        call(settings, "leave_a_daemon_and_wait", {"name": name}, log=lambda _: said.set())
    )
    await said.wait()
    assert len(processes_called(name)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes_called(name) == []
    assert left(settings) == []


async def test_a_job_that_is_cancelled_twice_leaves_nothing(settings: IsolationSettings) -> None:
    said = asyncio.Event()
    task = asyncio.create_task(call(settings, "say_and_wait", {"text": "x"}, log=lambda _: said.set()))
    await said.wait()
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(settings) == []


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
async def test_a_job_can_be_cancelled_while_it_is_being_started(
    settings: IsolationSettings, turns: int
) -> None:
    task = asyncio.create_task(call(settings, "say_and_wait", {"text": "x"}))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not settings.scratch_root.exists() or left(settings) == []


async def test_a_job_whose_time_is_over_leaves_nothing(settings: IsolationSettings) -> None:
    name = f"fwo-{os.getpid()}"
    limits = replace(SMALL, wall=timedelta(seconds=1))
    came = await attempt(settings, "leave_a_daemon_and_wait", {"name": name}, limits)
    assert came.kind == "timeout"
    assert processes_called(name) == []
    assert left(settings) == []


async def test_the_log_is_told_while_the_job_runs(settings: IsolationSettings) -> None:
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(call(settings, "say_and_wait", {"text": "at work"}, log=first.set_result))
    assert await first == "at work"
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


@pytest.mark.parametrize("victim", ["server", "guard"])
def test_whoever_is_killed_no_process_and_no_folder_is_left(settings: IsolationSettings, victim: str) -> None:
    if victim == "guard" and not asyncio.run(attempt(settings, "echo")).facts["descendants"]:
        pytest.skip("without a process namespace the guard is what ends a daemon")
    name = f"fwk-{os.getpid()}-{victim[0]}"
    settings.scratch_root.mkdir(mode=0o711, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-B", "-m", "tests.unit.packaging.isolation.attempts", "--log"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        order = (
            f'{{"user": 0, "bare": false, "scratch_root": "{settings.scratch_root}", "times": {{}},'
            f' "function": "leave_a_daemon_and_wait", "arguments": {{"name": "{name}"}}}}\n'
        )
        server.stdin.write(order.encode())
        server.stdin.flush()
        assert server.stdout.readline() == b"ready\n"
        guard = child_of(server.pid)
        ended = [os.pidfd_open(pid) for pid in (guard, *map(int, processes_called(name)))]
        assert len(ended) == 2
        os.kill(server.pid if victim == "server" else guard, signal.SIGKILL)
        for descriptor in ended:
            assert select.select([descriptor], [], [], 30)[0]
            os.close(descriptor)
        server.communicate()
    assert processes_called(name) == []
    assert left(settings) == []


def test_a_folder_that_was_left_behind_is_swept(settings: IsolationSettings) -> None:
    orphan = Scratch.make(settings)
    (orphan.path / "out" / "deep").mkdir()
    os.close(orphan._lock)
    assert sweep(settings.scratch_root) == 0, "it may still be at work"
    os.utime(orphan.path, (0, 0))
    assert sweep(settings.scratch_root) == 1
    assert left(settings) == []


def test_a_folder_that_is_in_use_is_not_swept(settings: IsolationSettings) -> None:
    used = Scratch.make(settings)
    os.utime(used.path, (0, 0))
    assert sweep(settings.scratch_root) == 0
    used.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_a_folder_of_another_user_is_not_swept(settings: IsolationSettings) -> None:
    foreign = settings.scratch_root / "fleetwright-job-foreign"
    foreign.mkdir(parents=True)
    os.chown(foreign, 54_321, 54_321)
    os.utime(foreign, (0, 0))
    assert sweep(settings.scratch_root) == 0


def test_what_is_no_folder_is_not_swept(settings: IsolationSettings, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    settings.scratch_root.mkdir()
    (settings.scratch_root / "fleetwright-job-link").symlink_to(tmp_path / "kept")
    os.utime(settings.scratch_root / "fleetwright-job-link", (0, 0), follow_symlinks=False)
    assert sweep(settings.scratch_root) == 0
    assert (tmp_path / "kept").exists()


def test_a_root_that_was_never_made_has_nothing_to_sweep(settings: IsolationSettings) -> None:
    assert sweep(settings.scratch_root) == 0
