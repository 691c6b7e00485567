"""A disk that fills: the server's, and the agents'. A small file system of its own where mounting is allowed.

Where it is not, SQLite is told that its file may not grow (``max_page_count``): the error is that of a full
disk, and the note of the row says which of the two was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from controlplane.storage.sqlite import filling
from faults.books import effects_by_task
from faults.faults import Fault, Sizes
from faults.hosts import METRIC, first_value
from faults.world import World

_SERVER_SIZE = "256m"
_AGENTS_SIZE = "96m"
_REFUSALS = 20
_AGENTS = 6
"""Agents whose disk fills: each has a journal, and a reserve on the same disk."""
_RESERVE = 1 << 20
_POINTS = 100
"""Points of one sampling: a thousand a second of each agent, so that they have to give way soon."""
_QUEUED = 2_500
"""Points that wait in each journal when its disk fills: more than are given up at once."""
_WORK_SECONDS = 5.0
"""Long enough that work which was begun before the disk is full ends on the full disk."""


@dataclass
class Disk:
    """Something that can be made full, and given room again."""

    folder: Path
    mounted: bool
    switch: Path
    """The file while which is there nothing may grow; of a disk that is not ``mounted``."""

    @property
    def how(self) -> str:
        """Return what stands for the disk."""
        return "a tmpfs was filled" if self.mounted else "max_page_count, for nothing can be mounted here"

    async def fill(self) -> None:
        """Leave no room."""
        if self.mounted:
            await asyncio.to_thread(_fill, self.folder / "ballast")
        else:
            self.switch.touch()

    def free(self) -> None:
        """Give the room back."""
        (self.folder / "ballast" if self.mounted else self.switch).unlink()


async def mounted_disk(world: World, folder: Path, size: str) -> Disk:
    """Make ``folder`` on a small file system of its own; see ``mounted`` for whether that is allowed."""
    return await _disk(world, folder, size, folder.with_suffix(".full"))


async def _disk(world: World, folder: Path, size: str, switch: Path) -> Disk:
    """Make ``folder``, on a small file system of its own where that is allowed."""
    mounted = await asyncio.to_thread(_mount, folder, size)
    if mounted:
        world.cleanup.callback(_unmount, folder)
    return Disk(folder, mounted, switch)


def _mount(folder: Path, size: str) -> bool:
    """Make ``folder``, and mount a small file system there; returns whether that is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "fleetwright-faults", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _unmount(folder: Path) -> None:
    command = ["umount", "--lazy", str(folder)]
    subprocess.run(command, capture_output=True, check=False)


def _fill(ballast: Path) -> int:
    """Write until not one more page fits; return how many bytes that took."""
    written = 0
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4_096):
            with contextlib.suppress(OSError):
                while True:
                    written += os.write(file.fileno(), bytes(size))
    return written


async def _server_filled(world: World, sizes: Sizes) -> None:
    folder = world.folder / "data"
    disk = await _disk(world, folder, _SERVER_SIZE, folder / filling.SWITCH)
    await world.begin(sizes.agents, failpoints="" if disk.mounted else filling.WORD)
    await world.start_hosts()
    world.load(sizes.tasks, per_second=sizes.tasks / 10)
    await world.under_load()
    await disk.fill()
    await world.until(
        "calls are refused for want of space", lambda: world.callers.errors.total() >= _REFUSALS
    )
    refused = dict(world.callers.errors)
    disk.free()
    await world.recover(since=time.monotonic())
    await world.work_done()
    world.row.note = f"{disk.how}; calls refused meanwhile: {refused}"


async def _agents_filled(world: World, sizes: Sizes) -> None:
    world.drops_allowed = True
    disk = await _disk(world, world.folder / "journals", _AGENTS_SIZE, world.folder / "journals-full")
    await world.begin(min(sizes.agents, _AGENTS))
    await world.start_hosts(
        durable=True,
        journals=str(disk.folder),
        reserve_bytes=_RESERVE,
        full="" if disk.mounted else str(disk.switch),
        points=_POINTS,
        work_seconds=_WORK_SECONDS,
    )
    world.load(sizes.tasks, per_second=sizes.tasks / 10)
    await world.under_load()
    # What an agent measures goes away as fast as it comes while there is a server: without one it waits,
    # and then has to give way, while results stay.
    world.server.process.kill()
    await world.server.died()
    world.books.look()
    before = Counter(world.books.measured)
    await world.until(
        "much waits in every journal",
        lambda: all(world.books.measured[agent] - before[agent] >= _QUEUED for agent in world.agents),
    )
    newest = Counter(world.books.measured)
    effects = effects_by_task(world.witness).total()
    await disk.fill()
    await world.until(
        "every agent gives up telemetry", lambda: world.books.dropped.keys() >= set(world.agents)
    )
    await world.until("work ends on the full disk", lambda: effects_by_task(world.witness).total() > effects)
    ended = effects_by_task(world.witness).total() - effects
    full = len(world.books.full)
    if not full:
        world.row.problems.append("no agent knows that it has no room")
    disk.free()
    await world.serve()
    begun = time.monotonic()
    await world.recover(since=begun)
    await world.work_done()
    await world.until("every agent takes its reserve back", lambda: not world.books.full)
    missing = await _missing(world, newest)
    dropped = world.books.dropped.total()
    world.row.note = (
        f"{disk.how}; {dropped:,} points given up and counted, {missing:,} missing; "
        f"{ended} effects on the full disk; {full} of {len(world.agents)} agents said that they have no room"
    )


async def _missing(world: World, newest: Counter[str]) -> int:
    """Return how many points never came, and note where they are not the oldest or were not counted.

    ``newest`` is how many points each agent had measured when its disk filled.
    """
    total = 0
    for number, agent in enumerate(world.agents):
        points = await world.admin().points(agent)
        stored = {int(one.point.value) for one in points if one.point.metric == METRIC}
        first = first_value(number, 0)
        missing = sorted(set(range(first, max(stored))) - stored)
        total += len(missing)
        # Points are counted with the next ones, so of what is missing before a stored one all is counted.
        world.books.look()
        counted = world.books.dropped[agent]
        if len(missing) > counted:
            world.row.problems.append(f"{agent}: {len(missing)} points never came, {counted} were counted")
        # From the head of what waited when the disk filled, and nothing that was kept between them.
        if missing and (missing[-1] - missing[0] + 1 != len(missing) or missing[0] >= first + newest[agent]):
            world.row.problems.append(f"{agent}: others than the oldest points were given up")
    return total


FAULTS = (
    Fault(
        "server's disk full",
        "the disk of the data folder is filled under load, and has room again",
        _server_filled,
    ),
    Fault(
        "agents' disk full",
        "the disk of the agents' journals is filled while work runs, the server goes, and both come back",
        _agents_filled,
    ),
)
