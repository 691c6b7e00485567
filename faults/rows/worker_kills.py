"""``kill -9`` of the worker where tasks expire, leases lapse and batches are made: what it alone sees to."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import timedelta

from faults.faults import Fault, Sizes
from faults.rows.databases import on_postgres
from faults.rows.processes import GATEWAYS, check_ended_once, part_dies, restarts
from faults.world import LOOK, PATIENCE, FaultFailed, World

# At which hit the worker dies: after it has done something, and before it has done all.
KILLED_AT = {
    "schedules.after_run": 60,
    "sweep.before_commit": 2,
    "sweep.after_commit": 2,
    "slice.before_commit": 2,
    "slice.after_commit": 2,
}
_API_DIES = "api/slice.after_commit=kill@1"
# A lease lapses once its time is over and its agent is OFFLINE.
_LEASES_LAPSE_SOON = {
    "lease_time": "1s",
    "heartbeat_interval": "500ms",
    "stale_after": "2s",
    "offline_after": "4s",
}
_AWAY = 2
"""Agents that are not there until all that was for them has expired, and agents that go away with a lease."""
_SOON = 3600
"""Seconds: more than any queue time here, and less than what tasks get that do not say."""
# One after the other, over many sweeps: however late the first one is, others are left for the next.
_QUEUE_TIMES = [timedelta(seconds=1 + number % 6) for number in range(24)]


def _fault(point: str) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        await on_postgres(world)
        world.settings |= {"gateways": GATEWAYS, "batch_slice": 1, **_LEASES_LAPSE_SOON}
        armed = f"worker/{point}=kill@{KILLED_AT[point]}"
        if point.startswith("slice."):
            # A call that makes a large batch begins with its slices itself. It dies after the first one
            # that it makes, so that the rest of them is the worker's.
            armed += f",{_API_DIES}"
        await world.begin(sizes.agents, failpoints=armed)
        absent, leaving = world.agents[:_AWAY], world.agents[_AWAY : 2 * _AWAY]
        await world.start_hosts(world.agents[2 * _AWAY :])
        gone = await world.start_hosts(leaving, durable=True, failpoint="agent.after_receive=kill@1")
        world.load(sizes.tasks, per_second=sizes.tasks / 5)
        await asyncio.gather(world.callers.expiring(absent, _QUEUE_TIMES), world.callers.batch(world.agents))
        if await gone.died(within=sizes.patience) != -signal.SIGKILL:
            raise FaultFailed(f"the agents did not come to agent.after_receive: {gone.said()}")
        world.books.forget_sessions(leaving)
        await part_dies(world, "worker")
        lapsed = await _taken_back(world, leaving)
        await _expired(world, len(_QUEUE_TIMES))
        world.books.look()
        if world.books.losses:
            world.row.problems.append(f"{len(world.books.losses)} agents lost their session")
        # How long the agents were away is the row's doing, and no recovery.
        begun = time.monotonic()
        await world.start_hosts(absent)
        await world.start_hosts(leaving, durable=True)
        await world.recover(since=begun)
        await world.work_done()
        check_ended_once(world, "worker")
        world.row.note = f"{len(_QUEUE_TIMES)} tasks expired, {lapsed} leases lapsed"
        if restarts(world, "api"):
            world.row.note += "; the part for administrators was killed too"

    what = (
        f"kill -9 of the worker at {point}, while tasks expire, leases lapse and batches are made in slices"
    )
    return Fault(f"worker killed at {point}", what, strike)


async def _taken_back(world: World, agents: tuple[str, ...]) -> int:
    """Wait until no lease is left of agents that went away before they took any; return how many lapsed."""
    theirs = f"agent_id = ({' OR '.join(agents)})"
    await _until_none(world, f"{theirs} AND state = (LEASED OR RUNNING)")
    found = await world.admin().all_tasks(f"{theirs} AND attempt_count > 0")
    if not found:
        raise FaultFailed("no agent went away with a lease")
    return len(found)


async def _expired(world: World, number: int) -> None:
    """Wait until so many tasks have expired."""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _SOON))
    await _until_none(world, f"state = QUEUED AND expire_time < {soon}")
    found = len(await world.admin().all_tasks("state = EXPIRED"))
    if found != number:
        world.row.problems.append(f"{found} tasks expired, not {number}")


async def _until_none(world: World, filter_text: str) -> None:
    admin, deadline = world.admin(), time.monotonic() + PATIENCE
    while left := await admin.all_tasks(filter_text):
        if time.monotonic() > deadline:
            raise FaultFailed(f"not within {PATIENCE:.0f} s: {len(left)} tasks are still {filter_text}")
        await asyncio.sleep(LOOK * 4)


FAULTS = tuple(_fault(point) for point in KILLED_AT)
