"""A process that stands still: stopped by SIGSTOP on either side, or with its event loop kept."""

from __future__ import annotations

import signal
import time

import psutil

from faults.faults import Fault, Sizes
from faults.world import World

_STALL_SECONDS = 3


def _stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


async def _server_stopped(world: World, sizes: Sizes) -> None:
    await world.begin(sizes.agents, failpoints=f"results.after_receive=stop@{sizes.tasks // 3}")
    await world.start_hosts()
    world.load(sizes.tasks)
    await world.until("the server stops itself", lambda: _stopped(world.server.pid))
    await world.agents_notice(time.monotonic())
    begun = time.monotonic()
    world.server.process.send_signal(signal.SIGCONT)
    await world.recover(since=begun)
    await world.work_done()


async def _agents_stopped(world: World, sizes: Sizes) -> None:
    await world.begin(sizes.agents)
    hosts = await world.start_hosts(durable=True, failpoint=f"agent.after_effect=stop@{sizes.tasks // 3}")
    world.load(sizes.tasks)
    await world.until("the agents stop themselves", lambda: _stopped(hosts.pid))
    await world.server_notices(time.monotonic())
    begun = time.monotonic()
    hosts.send(signal.SIGCONT)
    await world.recover(since=begun)
    await world.work_done()


async def _stalled(world: World, sizes: Sizes) -> None:
    point = f"telemetry.after_receive=stall={_STALL_SECONDS}s@{sizes.agents * 13}"
    await world.begin(sizes.agents, failpoints=point)
    await world.start_hosts()
    world.load(sizes.tasks, per_second=sizes.tasks / 6)
    await world.work_done()
    slowest = world.callers.slowest
    if slowest < _STALL_SECONDS / 2:
        world.row.problems.append(f"no call waited: the slowest took {slowest:.1f} s")
    if world.callers.errors:
        world.row.problems.append(f"calls failed: {dict(world.callers.errors)}")
    ended = [loss.what for loss in world.books.losses] + [failure.what for failure in world.books.failures]
    if ended:
        world.row.problems.append(f"streams ended: {len(ended)}, among them {ended[0]}")
    world.row.note = f"slowest call {slowest:.1f} s, none failed"
    await world.recover(since=time.monotonic())


FAULTS = (
    Fault(
        "server stopped",
        "SIGSTOP of the server under load, until agents notice; SIGCONT",
        _server_stopped,
        slow=True,
    ),
    Fault(
        "agents stopped",
        "SIGSTOP of agents under load, until the server notices; SIGCONT",
        _agents_stopped,
        slow=True,
    ),
    Fault("server stalled", f"the server's event loop is kept for {_STALL_SECONDS} s under load", _stalled),
)
