"""``kill -9`` of a process of agents at each point between receive, journal, effect and acknowledge."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import closing

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


def _unfinished(world: World) -> set[str]:
    """Return the tasks of the attempts that stand in the agents' journals without a result."""
    found: set[str] = set()
    for agent in world.agents:
        journal = world.folder / "identities" / agent / "journal.sqlite3"
        if journal.exists():
            with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
                rows = database.execute("SELECT task FROM attempts WHERE state <> 'finished'").fetchall()
            found.update(task for (task,) in rows)
    return found


def _fault(point: str) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        await world.begin(sizes.agents)
        hosts = await world.start_hosts(durable=True, failpoint=f"{point}=kill@{hits(point, sizes)}")
        world.load(sizes.tasks)
        status = await hosts.died(within=sizes.patience)
        if status != -signal.SIGKILL:
            raise FaultFailed(
                f"the agents ended with status {status} before they came to {point}: {hosts.said()}"
            )
        world.books.forget_sessions(world.agents)
        world.unfinished = await asyncio.to_thread(_unfinished, world)
        begun = time.monotonic()
        await world.start_hosts(durable=True)
        await world.recover(since=begun)
        world.row.note = f"{len(world.unfinished)} attempts in the journals without a result"

    what = f"kill -9 of the process of all agents at {point}, and a new start on the same journals"
    return Fault(f"agents killed at {point}", what, strike)


FAULTS = tuple(_fault(point) for point in POINTS)
