"""The public suite itself, where a checkout of it is at hand.

No package index has it, so it is not among our pins; its cases are tests of ours beside this one, by their
names. ``FLEETWRIGHT_TEST_TUF_CONFORMANCE`` names the folder of a checkout whose requirements are installed in
``env``, as its ``make dev`` does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tuf_conformance.simulated import TOP, Simulated, served

PROGRAM = Path(__file__).with_name("client.py")
CHECKOUT = os.environ.get("FLEETWRIGHT_TEST_TUF_CONFORMANCE", "")


def test_the_program_speaks_the_protocol_as_a_process(tmp_path: Path) -> None:
    repo, folder = Simulated(datetime.now(UTC)), tmp_path / "process"

    def run(*words: str) -> int:
        command = [sys.executable, str(PROGRAM), "--metadata-dir", str(folder), *words]
        return subprocess.run(command, capture_output=True, check=False).returncode

    with served(repo, tmp_path) as client:
        root = tmp_path / "initial_root.json"
        assert run("init", str(root)) == 0
        assert run("--metadata-url", f"{client.url}/metadata/", "refresh") == 0
    assert repo.asked == [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
    assert sorted(path.stem for path in folder.glob("*.json")) == sorted(TOP)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not CHECKOUT, reason="FLEETWRIGHT_TEST_TUF_CONFORMANCE names no checkout of the suite")
def test_the_public_suite_passes() -> None:
    assert shutil.which("faketime"), "the suite needs the program faketime: apt-get install faketime"
    entry = f"{sys.executable} {PROGRAM}"
    words = [f"{CHECKOUT}/env/bin/pytest", "tuf_conformance", f"--entrypoint={entry}", "-q"]
    ended = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-2_000:]
