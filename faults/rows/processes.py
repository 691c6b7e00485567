"""A server of several processes: one gateway of three, the worker, the supervisor."""

from __future__ import annotations

import signal
import time
from typing import Any

from faults.faults import Fault, Sizes
from faults.rows.databases import on_postgres
from faults.world import World

_GATEWAYS = 3
# The kernel spreads the agents over the gateways: a quarter of its fair share is with one of them surely.
_SHARE = 4 * _GATEWAYS


def _restarts(world: World, part: str) -> list[dict[str, Any]]:
    """Return what the supervisor said of the ends of a part."""
    said = "a part ended, and is started again"
    return [line for line in world.server.log if line.get("event") == said and line["part"] == part]


async def _part_killed(world: World, sizes: Sizes, part: str, failpoint: str) -> None:
    await on_postgres(world)
    world.settings["gateways"] = _GATEWAYS
    await world.begin(sizes.agents, failpoints=f"{part}/{failpoint}")
    await world.start_hosts()
    world.load(sizes.tasks, per_second=sizes.tasks / 10)
    await world.until(f"{part} dies", lambda: bool(_restarts(world, part)))
    begun = time.monotonic()
    status = _restarts(world, part)[0]["status"]
    if status != -signal.SIGKILL:
        world.row.problems.append(f"{part} ended with status {status}, not by its failpoint")
    await world.recover(since=begun)
    await world.work_done()
    again = len(_restarts(world, part)) - 1
    if again:
        world.row.problems.append(f"{part} ended {again} times more")


def _gateway_killed(point: str) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        await _part_killed(world, sizes, "gateway-1", f"{point}=kill@{max(1, sizes.tasks // _SHARE)}")
        left = {loss.agent for loss in world.books.losses}
        world.row.note = f"{len(left)} of {len(world.agents)} agents lost their session"

    what = f"kill -9 of one gateway of {_GATEWAYS} at {point}; the supervisor starts it again"
    return Fault(f"one gateway of {_GATEWAYS} killed at {point}", what, strike)


async def _worker_killed(world: World, sizes: Sizes) -> None:
    await _part_killed(world, sizes, "worker", "schedules.after_run=kill@30")
    world.books.look()
    if world.books.losses:
        world.row.problems.append(f"{len(world.books.losses)} agents lost their session")


async def _supervisor_killed(world: World, sizes: Sizes) -> None:
    await on_postgres(world)
    world.settings["gateways"] = _GATEWAYS
    await world.begin(sizes.agents)
    await world.start_hosts()
    world.load(sizes.tasks, per_second=sizes.tasks / 10)
    await world.under_load()
    world.server.process.kill()
    # Its parts hang on it by a socket, and drain when that closes; their output ends with the last of them.
    await world.server.died()
    await world.serve()
    await world.recover(since=time.monotonic())
    await world.work_done()


FAULTS = (
    *(
        _gateway_killed(point)
        for point in ("results.after_receive", "results.after_commit", "results.after_acknowledge")
    ),
    Fault(
        "worker killed",
        "kill -9 of the worker after a run of a schedule, in a server of several",
        _worker_killed,
    ),
    Fault(
        "supervisor killed",
        "kill -9 of the supervisor under load: its parts drain and end; then a new start",
        _supervisor_killed,
    ),
)
