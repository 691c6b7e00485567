"""``kill -9`` of the server at each point between receive, commit and acknowledge, under load."""

from __future__ import annotations

import signal
import time

from faults.faults import Fault, Sizes
from faults.world import FaultFailed, World

# At which hit the server dies: well inside the load, so that much is done and much under way. As a share of
# the tasks; for telemetry, which comes of itself, in batches for each agent; for the writer in groups.
KILLED_AT = {
    "tasks.after_receive": "half",
    "tasks.after_create": "half",
    "leases.after_commit": "agents",
    "leases.after_send": "third",
    "accepts.after_receive": "third",
    "accepts.after_commit": "third",
    "results.after_receive": "third",
    "results.after_commit": "third",
    "results.after_acknowledge": "third",
    "telemetry.after_receive": "batches",
    "telemetry.after_commit": "batches",
    "telemetry.after_acknowledge": "batches",
    "writer.before_commit": "groups",
    "writer.after_commit": "groups",
}
_BATCHES = 13
_GROUPS = 60


def hits(point: str, sizes: Sizes) -> int:
    """Return at which hit of ``point`` the server dies."""
    return {
        "half": sizes.tasks // 2,
        "third": sizes.tasks // 3,
        "agents": sizes.agents,
        "batches": sizes.agents * _BATCHES,
        "groups": _GROUPS,
    }[KILLED_AT[point]]


async def killed_and_started_again(world: World, sizes: Sizes, point: str) -> None:
    """Begin a world, let its server die at ``point`` under load, and start it again."""
    await world.begin(sizes.agents, failpoints=f"{point}=kill@{hits(point, sizes)}")
    await world.start_hosts()
    world.load(sizes.tasks)
    status = await world.server.died()
    if status != -signal.SIGKILL:
        raise FaultFailed(f"the server ended with status {status} before it came to {point}")
    world.books.look()
    acknowledged = world.callers.acknowledged, world.books.results, world.books.points
    if not any(acknowledged):
        raise FaultFailed("the server was killed before it had acknowledged anything")
    await world.serve()
    await world.recover(since=time.monotonic())


def _fault(point: str) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        await killed_and_started_again(world, sizes, point)

    return Fault(f"server killed at {point}", f"kill -9 of the server at {point}, and a new start", strike)


FAULTS = tuple(_fault(point) for point in KILLED_AT)
