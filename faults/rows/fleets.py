"""Many agents at once: all of them after a restart, and a backlog beside those that only beat."""

from __future__ import annotations

import asyncio
import math
import signal
import time

from faults.faults import Fault, Sizes
from faults.world import FaultFailed, World

_HALVES = 2
_INTERVAL = 2.0
_WINDOW = 10.0
"""Seconds of beats before the backlog comes, to compare with."""
_POINTS_PER_SECOND = 5_000
_SLOWER = 3.0
"""How many times longer the 99th percentile of a beat may take while a backlog is replayed."""


async def _come_back(world: World, sizes: Sizes) -> None:
    world.settings["telemetry_interval"] = "30s"
    kill = sizes.fleet // 4
    await world.begin(sizes.fleet, failpoints=f"results.after_commit=kill@{kill}")
    part = len(world.agents) // _HALVES
    for start in range(0, len(world.agents), part):
        # With the backoff that agents have by themselves: it is what spreads a storm.
        await world.start_hosts(world.agents[start : start + part], backoff_base=1.0, backoff_cap=120.0)
    await world.all_connected()
    world.load(sizes.fleet // 2, at_once=32)
    if await world.server.died() != -signal.SIGKILL:
        raise FaultFailed("the server did not come to results.after_commit")
    await world.serve()
    listening = time.monotonic()
    await world.recover(since=listening)
    back = world.books.back_after(listening)
    most = back[int(len(back) * 0.99) - 1]
    world.row.note = (
        f"{len(back):,} agents: half back after {back[len(back) // 2]:.1f} s, 99 % after {most:.1f} s, "
        f"all after {back[-1]:.1f} s"
    )


async def _replay(world: World, sizes: Sizes) -> None:
    world.settings["telemetry_interval"] = "30s"
    world.settings["heartbeat_interval"] = f"{_INTERVAL:.0f}s"
    await world.begin(sizes.beating + sizes.replaying)
    beating, replaying = world.agents[: sizes.beating], world.agents[sizes.beating :]
    await world.start_hosts(beating, points=0)
    await world.until("all of the others are connected", lambda: world.books.live >= set(beating))
    # Time is what is measured here.
    before = time.monotonic()
    await asyncio.sleep(_WINDOW)
    begun = time.monotonic()
    await world.start_hosts(replaying, backlog=sizes.backlog)
    total = sizes.backlog * sizes.replaying
    await world.until("the backlog is acknowledged", lambda: len(world.books.points) >= total)
    ended = time.monotonic()
    first = min(one.time for one in world.books.connections if one.agent in set(replaying))
    await asyncio.sleep(2 * _INTERVAL)
    world.books.look()
    missed = world.books.missed_beats(beating, 2 * _INTERVAL, before, time.monotonic())
    quiet, busy = world.books.beat_p99(before, begun), world.books.beat_p99(first, ended)
    slower = busy / quiet if quiet else math.inf
    rate = total / (ended - first)
    world.row.note = (
        f"{rate:,.0f} points/s; beats missed: {missed}; p99 of a beat {quiet * 1000:.1f} ms before, "
        f"{busy * 1000:.1f} ms meanwhile: {slower:.1f} times as long"
    )
    if missed or world.books.losses:
        world.row.problems.append(f"{missed} beats missed, {len(world.books.losses)} sessions ended")
    if total >= FULL_BACKLOG and rate < _POINTS_PER_SECOND:
        world.row.problems.append(f"{rate:,.0f} points/s, not {_POINTS_PER_SECOND:,}")
    if total >= FULL_BACKLOG and slower > _SLOWER:
        world.row.problems.append(f"p99 of a beat {slower:.1f} times as long, not {_SLOWER:.0f} at most")
    await world.recover(since=ended)


FULL_BACKLOG = 100_000

FAULTS = (
    Fault(
        "many agents come back at once", "kill -9 of the server; the backoff is the agents' own", _come_back
    ),
    Fault(
        "a backlog is replayed",
        "agents replay full journals beside others that must not miss a beat",
        _replay,
    ),
)
