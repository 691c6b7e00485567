"""A server of several processes: one gateway of three, and the supervisor."""

from __future__ import annotations

import signal
import time
from typing import Any

from fleetwright.v1 import server_service_pb2, server_service_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from faults.faults import Fault, Sizes
from faults.rows.databases import on_postgres
from faults.rows.server_kills import KILLED_AT
from faults.world import FaultFailed, World
from tests.support.site import http_get

GATEWAYS = 3
_STRUCK = "gateway-1"
_STARTS = 10
_LIFELINE = {"stream": "Heartbeat"}
# What creates tasks is in the part for administrators; the rest of delivery is all in the gateways.
POINTS = tuple(point for point in KILLED_AT if not point.startswith("tasks."))
# One agent alone has to come there, should no other be with this gateway.
_HITS = {"telemetry": 60, "writer": 60}
_HITS_OF_TASKS = 3


def restarts(world: World, part: str) -> list[dict[str, Any]]:
    """Return what the supervisor said of the ends of a part."""
    said = "a part ended, and is started again"
    return [line for line in world.server.log if line.get("event") == said and line["part"] == part]


async def part_dies(world: World, part: str) -> float:
    """Wait until a part was killed by its failpoint; return when that was seen."""
    await world.until(f"{part} dies", lambda: bool(restarts(world, part)))
    begun = time.monotonic()
    status = restarts(world, part)[0]["status"]
    if status != -signal.SIGKILL:
        world.row.problems.append(f"{part} ended with status {status}, not by its failpoint")
    return begun


def check_ended_once(world: World, part: str) -> None:
    """Note it where a part ended again after its failpoint."""
    again = len(restarts(world, part)) - 1
    if again:
        world.row.problems.append(f"{part} ended {again} times more")


async def _held(world: World, part: str) -> float:
    """Return how many agents are with a gateway, by its own metrics."""
    stub: Any = server_service_pb2_grpc.ServerServiceStub(world.admin().channel)
    listed = await stub.ListProcesses(server_service_pb2.ListProcessesRequest())
    for process in listed.processes:
        if process.part.endswith(part) and "health" in process.addresses:
            port = int(process.addresses["health"].rpartition(":")[2])
            try:
                text = (await http_get(port, "/metrics"))[1]
            except OSError:
                return 0.0  # It may have died by now: then it held some.
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name == "fleetwright_open_streams" and sample.labels == _LIFELINE:
                        return float(sample.value)
    return 0.0


async def _hosts_with_some_at(world: World, part: str) -> float:
    """Start the agents, again where the kernel gave none of them to ``part``; return when that was."""
    for _ in range(_STARTS):
        begun = time.monotonic()
        hosts = await world.start_hosts()
        await world.until(
            "every agent holds a session, or the gateway has died",
            lambda: bool(restarts(world, part)) or world.books.live >= set(world.agents),
        )
        if restarts(world, part) or await _held(world, part):
            return begun
        await hosts.leave()
        world.books.look()
    raise FaultFailed(f"{part} held no agent in {_STARTS} starts of all of them")


def _gateway_killed(point: str) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        await on_postgres(world)
        world.settings["gateways"] = GATEWAYS
        hits = _HITS.get(point.partition(".")[0], _HITS_OF_TASKS)
        await world.begin(sizes.agents, failpoints=f"{_STRUCK}/{point}=kill@{hits}")
        started = await _hosts_with_some_at(world, _STRUCK)
        world.load(sizes.tasks, per_second=sizes.tasks / 10)
        begun = await part_dies(world, _STRUCK)
        await world.recover(since=begun)
        await world.work_done()
        check_ended_once(world, _STRUCK)
        left = world.lost_since(started)
        world.row.note = f"{len(left)} of {len(world.agents)} agents lost their session"
        if not left:
            world.row.problems.append("no agent lost its session: the gateway held none")

    what = f"kill -9 of one gateway of {GATEWAYS} at {point}; the supervisor starts it again"
    return Fault(f"one gateway of {GATEWAYS} killed at {point}", what, strike)


async def _supervisor_killed(world: World, sizes: Sizes) -> None:
    await on_postgres(world)
    world.settings["gateways"] = GATEWAYS
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
    *(_gateway_killed(point) for point in POINTS),
    Fault(
        "supervisor killed",
        "kill -9 of the supervisor under load: its parts drain and end; then a new start",
        _supervisor_killed,
    ),
)
