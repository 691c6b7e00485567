"""The state of agents, copied to a second machine while they were down, with work in hand."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time

from fleetwright.v1 import agent_registry_service_pb2

from faults.faults import Fault, Sizes
from faults.world import FaultFailed, World


async def _copied(world: World, sizes: Sizes) -> None:
    world.interrupted_allowed = world.stops_allowed = True
    await world.begin(sizes.agents)
    armed = f"agent.after_journal=kill@{sizes.tasks // 3}"
    first = await world.start_hosts(durable=True, failpoint=armed)
    world.load(sizes.tasks)
    if await first.died(within=sizes.patience) != -signal.SIGKILL:
        raise FaultFailed(f"the agents did not come to agent.after_journal: {first.said()}")
    world.books.forget_sessions(world.agents)
    copies = world.folder / "copies"
    await asyncio.to_thread(shutil.copytree, world.folder / "identities", copies)
    # The originals go on, and come back once more: what the copies show is used up by then, and what they
    # hold is done. After a single session it could not be told from that of an agent which fell before it
    # stored the new nonce.
    again = await world.start_hosts(durable=True)
    await world.all_connected()
    await world.work_done(interrupted=True)
    await again.leave()
    await world.start_hosts(durable=True)
    await world.all_connected()
    begun = time.monotonic()
    await world.start_hosts(durable=True, identities=str(copies))
    await world.until(
        "every original hears that another one took over",
        lambda: len(world.books.stopped) >= len(world.agents),
    )
    world.row.noticed = time.monotonic() - begun
    wrong = [said for said in world.books.stopped if "SessionReplacedError" not in said]
    if wrong:
        world.row.problems.append(f"{len(wrong)} agents gave up for another reason, among them {wrong[0]}")
    await world.recover(since=begun)
    await _all_suspected(world)


async def _all_suspected(world: World) -> None:
    request = agent_registry_service_pb2.ListAgentsRequest(page_size=1000, filter="suspected_clone = true")
    found = {agent.agent_id for agent in (await world.admin().agents.ListAgents(request)).agents}
    missing = set(world.agents) - found
    if missing:
        world.row.problems.append(f"{len(missing)} of {len(world.agents)} copies are not reported as clones")
    world.row.note = f"{len(found)} of {len(world.agents)} copies reported as clones"


FAULTS = (
    Fault(
        "agents' state copied",
        "agents are killed with work in hand, their state is copied, and originals and copies run",
        _copied,
    ),
)
