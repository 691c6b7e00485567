"""What the harness sees of processes: it must not take one that was left behind for none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.factory.processes import Machine, Watch

# A child with a child of its own; each says that it is there.
_FAMILY = (
    "import subprocess, sys, time; print('here', flush=True);"
    " subprocess.run([sys.executable, '-c', 'print(\"here\", flush=True); import time; time.sleep(60)'])"
)


@pytest.fixture
def family() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert [said.readline(), said.readline()] == ["here\n", "here\n"]
        yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_what_is_below_a_process_is_seen_with_how_far(family: subprocess.Popen[str]) -> None:
    below = Machine.look().below(os.getpid())
    assert below[family.pid] == 1
    [child] = Machine.look().below(family.pid)
    assert below[child] == 2


def test_a_process_that_outlives_its_parent_is_left(family: subprocess.Popen[str], tmp_path: Path) -> None:
    watch = Watch()
    watch.servers.add(family.pid)
    [child] = watch.look().below(family.pid)
    family.kill()
    family.wait()
    assert watch.left(tmp_path) == [child]
    os.kill(child, signal.SIGKILL)
    while child in Machine.look().states and Machine.look().states[child] not in "ZX":
        pass
    assert watch.left(tmp_path) == []


def test_a_process_that_works_in_the_folder_is_left(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, cwd=tmp_path / "job", stdin=subprocess.PIPE, text=True) as process:
        assert Watch().left(tmp_path) == [process.pid]
        process.communicate("\n")
    assert Watch().left(tmp_path) == []


def test_a_process_that_was_stopped_is_seen_to_be(family: subprocess.Popen[str]) -> None:
    assert not Machine.look().stopped(family.pid)
    family.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, family.pid, os.WSTOPPED | os.WNOWAIT)
    assert Machine.look().stopped(family.pid)
