"""PostgreSQL restarted, killed, and gone for a while, under load."""

from __future__ import annotations

import asyncio
import time

from devtools.postgres import PostgresServer
from faults.faults import Fault, Sizes
from faults.rows.server_kills import KILLED_AT, killed_and_started_again
from faults.world import World


async def on_postgres(world: World) -> PostgresServer:
    """Let the world be one on a PostgreSQL of its own; call it before ``begin``."""
    server = await asyncio.to_thread(PostgresServer)
    world.cleanup.callback(server.close)
    await asyncio.to_thread(server.start)
    url = await asyncio.to_thread(server.create_database, "fleetwright")
    world.settings["database_url"] = url
    return server


async def _under_load(world: World, sizes: Sizes) -> PostgresServer:
    server = await on_postgres(world)
    await world.begin(sizes.agents)
    await world.start_hosts()
    world.load(sizes.tasks, per_second=sizes.tasks / 10)
    await world.under_load()
    return server


async def _stay_connected(world: World) -> None:
    """Note the sessions that ended: a database that is away is no reason to send agents away."""
    world.books.look()
    if world.books.losses:
        reasons = {loss.what for loss in world.books.losses}
        world.row.problems.append(f"{len(world.books.losses)} sessions ended: {', '.join(sorted(reasons))}")


async def _restarted(world: World, sizes: Sizes) -> None:
    server = await _under_load(world, sizes)
    await asyncio.to_thread(server.restart)
    await world.recover(since=time.monotonic())
    await world.work_done()
    await _stay_connected(world)


async def _killed(world: World, sizes: Sizes) -> None:
    server = await _under_load(world, sizes)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await world.recover(since=time.monotonic())
    await world.work_done()
    await _stay_connected(world)


async def _gone(world: World, sizes: Sizes) -> None:
    server = await _under_load(world, sizes)
    # The time is the fault here, and no wait for anything.
    await asyncio.to_thread(server.restart, sizes.away)
    await world.recover(since=time.monotonic())
    await world.work_done()
    await _stay_connected(world)
    world.row.note = f"away for {sizes.away:.0f} s; no session ended"


def _server_killed(point: str) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        await on_postgres(world)
        await killed_and_started_again(world, sizes, point)

    return Fault(
        f"server on PostgreSQL killed at {point}",
        f"kill -9 of the server at {point}, and a new start",
        strike,
    )


FAULTS = (
    Fault("PostgreSQL restarted", "PostgreSQL is stopped and started again under load", _restarted),
    Fault("PostgreSQL killed", "kill -9 of PostgreSQL under load, and a new start", _killed),
    Fault("PostgreSQL gone for a while", "PostgreSQL is away while agents and callers go on", _gone),
    *(_server_killed(point) for point in KILLED_AT),
)
