"""A disk that fills: the server's, a small file system of its own where mounting is allowed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from pathlib import Path

from faults.faults import Fault, Sizes
from faults.world import FaultSkipped, World

_SIZE = "256m"
_REFUSALS = 20


def _mount(folder: Path) -> None:
    """Mount a small file system at ``folder``. Raises ``FaultSkipped`` where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "fleetwright-faults", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise FaultSkipped(f"mount cannot be run here: {error}") from error
    if done.returncode:
        raise FaultSkipped(f"no file system can be mounted here: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    command = ["umount", "--lazy", str(folder)]
    subprocess.run(command, capture_output=True, check=False)


def _fill(ballast: Path) -> int:
    """Write until not one more page fits; return how many bytes that took."""
    written = 0
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            written += os.write(file.fileno(), bytes(65_536))
    return written


async def _filled(world: World, sizes: Sizes) -> None:
    folder = world.folder / "data"
    await asyncio.to_thread(_mount, folder)
    world.cleanup.callback(_unmount, folder)
    await world.begin(sizes.agents)
    await world.start_hosts()
    world.load(sizes.tasks, per_second=sizes.tasks / 10)
    await world.under_load()
    ballast = folder / "ballast"
    await asyncio.to_thread(_fill, ballast)
    await world.until(
        "calls are refused for want of space", lambda: world.callers.errors.total() >= _REFUSALS
    )
    refused = dict(world.callers.errors)
    ballast.unlink()
    await world.recover(since=time.monotonic())
    await world.work_done()
    world.row.note = f"calls refused meanwhile: {refused}"


FAULTS = (
    Fault(
        "server's disk full",
        "the file system of the data folder is filled under load, and has room again",
        _filled,
    ),
)
