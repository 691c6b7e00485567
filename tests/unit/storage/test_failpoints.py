"""Failpoints: what may be armed, and where the process ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import failpoints

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.mark.parametrize(
    "specification",
    [
        "nowhere=kill@1",
        "writer.before_commit",
        "writer.before_commit=kill",
        "writer.before_commit=kill@0",
        "writer.before_commit=kill@-1",
        "writer.before_commit=kill@x",
        "writer.before_commit=sleep@1",
        "writer.before_commit=stall@1",
        "writer.before_commit=stall=3@1",
        "writer.before_commit=kill=3s@1",
        "writer.before_commit=stop@01",
        "writer.before_commit=kill@1;writer.after_commit=kill@1",
        "writer.after_commit=kill@1, writer.before_commit=kill@1",
    ],
)
def test_what_is_no_failpoint_is_refused_and_arms_nothing(specification: str) -> None:
    with pytest.raises(ValueError, match="is not NAME=VERB@N") as refused:
        failpoints.arm("tasks.after_create=kill@1," + specification)
    assert "writer.before_commit" in str(refused.value)
    for name in failpoints.NAMES:
        failpoints.hit(name)


def test_a_place_that_is_not_armed_is_passed() -> None:
    failpoints.arm("writer.after_commit=kill@2")
    failpoints.hit("writer.before_commit")
    failpoints.hit("writer.after_commit")
    failpoints.arm("")
    failpoints.hit("writer.after_commit")


def test_the_process_ends_at_the_hit_that_was_named() -> None:
    program = (
        "from controlplane import failpoints\n"
        "failpoints.arm('writer.after_commit=kill@3')\n"
        "for number in range(1, 9):\n"
        "    print(number, flush=True)\n"
        "    failpoints.hit('writer.after_commit')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.split()) == (-9, ["1", "2", "3"])


def test_a_stall_keeps_the_thread_once() -> None:
    failpoints.arm("writer.after_commit=stall=0.05s@2")
    taken = []
    for _ in range(4):
        begun = time.perf_counter()
        failpoints.hit("writer.after_commit")
        taken.append(time.perf_counter() - begun >= 0.05)
    assert taken == [False, True, False, False]


def test_a_process_that_stopped_itself_goes_on_when_it_is_continued() -> None:
    program = (
        "from controlplane import failpoints\n"
        "failpoints.arm('writer.after_commit=stop@1')\n"
        "failpoints.hit('writer.after_commit')\n"
        "failpoints.hit('writer.after_commit')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0


def test_a_place_of_another_process_is_not_armed() -> None:
    failpoints.arm("gateway-2/writer.after_commit=kill@1,worker/writer.before_commit=kill@1", "gateway-1")
    failpoints.hit("writer.after_commit")
    failpoints.hit("writer.before_commit")
    failpoints.arm("gateway-1/writer.after_commit=stall=0.05s@1", "gateway-1")
    begun = time.perf_counter()
    failpoints.hit("writer.after_commit")
    assert time.perf_counter() - begun >= 0.05


def test_every_name_is_a_place_in_the_code_and_every_place_a_name() -> None:
    places: set[str] = set()
    for path in (ROOT / "controlplane").rglob("*.py"):
        places |= set(re.findall(r'failpoints\.hit\("([^"]+)"\)', path.read_text(encoding="utf-8")))
    assert places - {"tasks.after_commit"} == failpoints.NAMES  # the docstring's example
