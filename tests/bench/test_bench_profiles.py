from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import machine, profiles
from bench.children import Child
from bench.profiles import LOOP


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Child]:
    source = "import sys\ndef spin():\n    while True: pass\nprint('on', flush=True)\nspin()"
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Child("busy", process, tmp_path / "log", tmp_path / "log")
        process.kill()


def test_a_profile_says_which_threads_and_which_functions_were_busy(busy: Child, tmp_path: Path) -> None:
    profile = profiles.take(busy, 1, tmp_path / "samples")
    assert profile.threads[LOOP] > 0
    if profile.problem:
        pytest.skip(profile.problem)
    assert profile.whole["<string>: spin"] == profile.samples > 0


def test_without_a_sampler_a_profile_has_its_threads_and_says_why_no_more(
    busy: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    profile = profiles.take(busy, 1, tmp_path / "samples")
    assert profile.samples == 0
    assert profile.problem == (
        "py-spy could not sample: No such file or directory; it comes with the development environment"
    )


def test_the_clock_of_a_process_counts_its_cpu(busy: Child) -> None:
    first = machine.cpu_seconds(busy.pid)
    while machine.cpu_seconds(busy.pid) <= first:
        pass
    assert machine.rss_bytes(busy.pid) > 0
