"""A network that cuts, delays, or swallows what is sent: a proxy of ours between agents and server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faults.faults import Fault, Sizes
from faults.proxy import Proxy
from faults.world import World

_CUTS = 5
_DELAY, _JITTER = 0.2, 0.05
"""Seconds in each direction."""


@asynccontextmanager
async def _behind_a_proxy(world: World, sizes: Sizes) -> AsyncIterator[Proxy]:
    """Give a world whose agents reach the server through a proxy, under load."""
    await world.begin(sizes.agents)
    proxy = Proxy(world.ports.agents)
    await proxy.start()
    try:
        await world.start_hosts(address=proxy.address)
        # As many tasks as the network is broken for seconds, so that there is work all the time.
        world.load(sizes.tasks, per_second=sizes.tasks / 10)
        await world.under_load()
        yield proxy
    finally:
        await proxy.close()


def _cut(*, reset: bool) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        async with _behind_a_proxy(world, sizes) as proxy:
            begun = time.monotonic()
            for _ in range(_CUTS):
                await world.all_connected()
                await world.more_results()
                begun = time.monotonic()
                proxy.cut(reset=reset)
                await world.all_lost(begun)
            await world.recover(since=begun)
            await world.work_done()

    flag = "RST" if reset else "FIN"
    what = f"all connections cut {_CUTS} times by {flag}, under load"
    return Fault(f"network cut by {flag}", what, strike)


async def _delayed(world: World, sizes: Sizes) -> None:
    async with _behind_a_proxy(world, sizes) as proxy:
        proxy.delay, proxy.jitter = _DELAY, _JITTER
        await world.work_done()
        lost = world.books.losses
        if lost:
            world.row.problems.append(f"{len(lost)} sessions ended for a delay alone: {lost[0].what}")
        begun = time.monotonic()
        proxy.mend()
        await world.recover(since=begun)
        # Results of the probes too: with the proxy gone, no agent could tell them any more.
        await world.work_done()


def _swallowing(name: str, what: str, *, up: bool, down: bool) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        async with _behind_a_proxy(world, sizes) as proxy:
            begun = time.monotonic()
            proxy.swallows_up, proxy.swallows_down = up, down
            async with asyncio.TaskGroup() as group:
                group.create_task(world.agents_notice(begun))
                group.create_task(world.server_notices(begun))
            mended = time.monotonic()
            proxy.mend()
            await world.recover(since=mended)
            await world.work_done()

    return Fault(name, what, strike, slow=True)


async def _half_open(world: World, sizes: Sizes) -> None:
    async with _behind_a_proxy(world, sizes) as proxy:
        begun = time.monotonic()
        proxy.lose_connections()
        await world.agents_notice(begun)
        await world.recover(since=begun)
        await world.work_done()


FAULTS = (
    _cut(reset=True),
    _cut(reset=False),
    Fault(
        "network delays",
        f"{_DELAY * 1000:.0f} ms and up to {_JITTER * 1000:.0f} ms more in each direction, under load",
        _delayed,
    ),
    _swallowing(
        "network swallows what agents send",
        "nothing of what agents send arrives, until both sides have noticed",
        up=True,
        down=False,
    ),
    _swallowing(
        "network swallows what the server sends",
        "nothing of what the server sends arrives, until both sides have noticed",
        up=False,
        down=True,
    ),
    Fault(
        "half-open connections",
        "open connections go nowhere without an end, as behind a NAT that forgot them; new ones are good",
        _half_open,
        slow=True,
    ),
)
