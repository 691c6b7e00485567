"""The program as a whole, in sizes that measure nothing: its shape, its end, its refusals."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.figures import BUDGETS
from tests.support.process import REPOSITORY, environment

PATIENCE = 100.0


async def start(
    scratch: Path, *arguments: str, preexec: Callable[[], None] | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bench", *arguments),
        cwd=REPOSITORY,
        env=environment({"TMPDIR": str(scratch)}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=preexec,
    )


async def ended(process: asyncio.subprocess.Process, within: float = PATIENCE) -> tuple[int, str, str]:
    async with asyncio.timeout(within):
        out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


@pytest.mark.slow
async def test_a_quick_run_prints_a_line_for_each_budget_and_leaves_nothing(tmp_path: Path) -> None:
    names = ["heartbeats", "tasks"]
    status, out, errors = await ended(await start(tmp_path, "--quick", *(f"--only={name}" for name in names)))
    assert status == 0, errors
    lines = [json.loads(text) for text in out.splitlines()]
    assert [one["name"] for one in lines] == names
    for one in lines:
        assert one["met"] is None
        assert one["quick"] is True
        assert one["budget"] == BUDGETS[one["name"]].words
        assert min(one["yardstick"], one["value"], one["ratio"]) > 0
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_storms_are_measured_beside_what_the_database_promises(tmp_path: Path) -> None:
    names = ["return-99", "return-100", "replay-rate", "replay-beats"]
    process = await start(tmp_path, "--quick", *(f"--only={name}" for name in names))
    # Backoffs that have grown through an outage take as long as they take.
    status, out, errors = await ended(process, 350)
    assert status == 0, errors
    lines = [json.loads(text) for text in out.splitlines()]
    assert [one["name"] for one in lines] == names
    for one in lines:
        assert one["value"] > 0
        assert "synchronous=FULL" in one["durability"]
    assert "0 unanswered" in lines[-1]["note"]
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_interrupted_stops_what_it_started(tmp_path: Path, number: int) -> None:
    process = await start(tmp_path, "--quick", "--only=heartbeats")
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while b"connecting" not in await process.stderr.readline():
            pass
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(number)
    status, _, errors = await ended(process)
    assert (status, "interrupted" in errors, "Traceback" in errors) == (1, True, False)
    assert [one.pid for one in started if one.is_running()] == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only=speed"], "no budget has this name"),
        (["--write", "--quick"], "leave out --only and --quick"),
        (["--write", "--only=tasks"], "leave out --only and --quick"),
    ],
)
async def test_a_wrong_call_is_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    status, out, errors = await ended(await start(tmp_path, *arguments))
    assert (status, out, message in " ".join(errors.replace("│", " ").split())) == (2, "", True)
    assert os.listdir(tmp_path) == []


async def test_a_machine_whose_files_are_too_few_is_named_with_what_fits(tmp_path: Path) -> None:
    few = (2_000, 2_000)
    process = await start(tmp_path, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few))
    status, out, errors = await ended(process)
    assert (status, out) == (1, "")
    assert "this process may open 2000 files, which is enough for 876 agents" in errors
    assert "ulimit -Hn" in errors
