"""``kill -9`` of a process of agents at each point between receive, journal, effect and acknowledge."""

from __future__ import annotations

import signal
import time

from faults.faults import Fault, Sizes
from faults.world import FaultFailed, World

# At which hit the agents die, as a divisor of what there is to do; where a session begins, and where points
# go, the hit is counted in agents.
_OF_TASKS = {
    "agent.after_receive": 3,
    "agent.after_journal": 3,
    "agent.after_running": 3,
    "agent.after_effect": 3,
    "agent.after_result": 3,
    "agent.after_send": 3,
    "agent.after_acknowledge": 3,
    "agent.after_forget": 3,
}
_OF_AGENTS = {
    "agent.after_welcome": 1,
    "agent.after_nonce": 1,
    "agent.after_batch": 10,
    "agent.after_points": 10,
}
POINTS = (*_OF_AGENTS, *_OF_TASKS)


def hits(point: str, sizes: Sizes) -> int:
    """Return at which hit of ``point`` the agents die."""
    if point in _OF_TASKS:
        return sizes.tasks // _OF_TASKS[point]
    return sizes.agents * _OF_AGENTS[point]


def _fault(point: str) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        world.interrupted_allowed = True
        await world.begin(sizes.agents)
        hosts = await world.start_hosts(durable=True, failpoint=f"{point}=kill@{hits(point, sizes)}")
        world.load(sizes.tasks)
        status = await hosts.died(within=sizes.patience)
        if status != -signal.SIGKILL:
            raise FaultFailed(
                f"the agents ended with status {status} before they came to {point}: {hosts.said()}"
            )
        world.books.forget_sessions(world.agents)
        begun = time.monotonic()
        await world.start_hosts(durable=True)
        await world.recover(since=begun)

    what = f"kill -9 of the process of all agents at {point}, and a new start on the same journals"
    return Fault(f"agents killed at {point}", what, strike)


FAULTS = tuple(_fault(point) for point in POINTS)
