"""Settings for jobs of the tests, and the same jobs started by another user or without namespaces."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from controlplane.packaging.isolation.records import IsolationSettings
from tests.unit.packaging.isolation.attempts import FIRST_USER, ROOT, Came, attempt

SOMEONE = 54_321
"""A user without a name, for the tests' own parent."""
_NEW_ENOUGH = "import sys; sys.exit(sys.version_info < (3, 11))"


class Attempting(Protocol):
    """Runs a job of `jobs` somewhere."""

    def __call__(
        self, function: str, arguments: Mapping[str, Any] | None = None, **times: float
    ) -> Awaitable[Came]: ...


@pytest.fixture
def settings(tmp_path: Path) -> IsolationSettings:
    return IsolationSettings(scratch_root=tmp_path / "scratch", uid=FIRST_USER + os.getpid())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may use: the test's own is closed to others."""
    with tempfile.TemporaryDirectory(prefix="fleetwright-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _interpreter(user: int) -> str:
    """Return an interpreter that a user can start, with our code readable; skips where there is none."""
    for candidate in (sys.executable, shutil.which("python3.11", path="/usr/bin:/usr/local/bin")):
        who: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
        try:
            if candidate and not subprocess.run([candidate, "-I", "-c", _NEW_ENOUGH], **who).returncode:
                subprocess.run(
                    ["/bin/ls", str(ROOT / "controlplane")], **who, check=True, capture_output=True
                )
                return candidate
        except (OSError, subprocess.CalledProcessError):
            continue
    pytest.skip(f"no interpreter and checkout here that user {user} can read")


def program(user: int) -> list[str]:
    """Return the command of `attempts` for a user, to be started in the root of the checkout."""
    return [_interpreter(user), "-B", "-m", "tests.unit.packaging.isolation.attempts"]


def order_of(
    user: int,
    bare: bool,
    scratch_root: Path,
    function: str,
    arguments: Mapping[str, Any] | None,
    times: Mapping[str, float],
) -> bytes:
    """Return what `attempts` is told."""
    told = {"user": user, "bare": bare, "scratch_root": str(scratch_root), "function": function}
    return json.dumps({**told, "arguments": arguments or {}, "times": times}).encode() + b"\n"


def _elsewhere(user: int, bare: bool, folder: Path) -> Attempting:
    scratch_root = folder / "scratch"
    scratch_root.mkdir(mode=0o711)
    if user:
        os.chown(scratch_root, user, user)
    # As root, an interpreter that the job's user can read: without namespaces it needs to.
    command = program(user or (65534 if bare and os.geteuid() == 0 else 0))

    async def started(function: str, arguments: Mapping[str, Any] | None = None, **times: float) -> Came:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        order = order_of(user, bare, scratch_root, function, arguments, times)
        out, err = await process.communicate(order)
        assert process.returncode == 0, err.decode()
        return Came(**json.loads(out))

    return started


SITUATIONS = ("here", "another user", "no namespaces", "another user, no namespaces")
"""Where jobs are started: by the test itself (root, in many places), by another user, as in a container."""


@pytest.fixture
def in_a_situation(settings: IsolationSettings, open_folder: Path) -> Callable[[str], Attempting]:
    """Return how to run a job in a situation; skips what cannot be had here."""

    def chosen(situation: str) -> Attempting:
        if situation == "here":

            async def here(function: str, arguments: Mapping[str, Any] | None = None, **_: float) -> Came:
                return await attempt(settings, function, arguments)

            return here
        another = "another user" in situation
        if another and os.geteuid() != 0:
            pytest.skip("only root can start a program as another user; `here` is not root already")
        return _elsewhere(SOMEONE if another else 0, "no namespaces" in situation, open_folder)

    return chosen
