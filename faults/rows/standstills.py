"""A process that stands still: stopped by SIGSTOP on either side, one of several, or with its loop kept."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import grpc
import psutil
from fleetwright.v1 import server_service_pb2, server_service_pb2_grpc

from faults.faults import Fault, Sizes
from faults.report import NOTICED_WITHIN
from faults.rows.databases import on_postgres
from faults.world import LOOK, World

_STALL_SECONDS = 3
# More calls than a server of gRPC's own size lets wait (1,000, and 3,000 at the very most), over as many
# connections as it takes: one may hold 256 calls.
_CONNECTIONS, _CALLS_OF_EACH = 20, 200
_PROBE_SECONDS = 0.4
_CALL_SECONDS = 60.0
_GATEWAYS = 3


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


def _stopped_children(pid: int) -> list[int]:
    """Return the children of a process that are stopped."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_STOPPED:
                found.append(child.pid)
    return found


async def _part_stopped(world: World, sizes: Sizes, part: str, failpoint: str) -> None:
    await on_postgres(world)
    world.settings["gateways"] = _GATEWAYS
    await world.begin(sizes.agents, failpoints=f"{part}/{failpoint}")
    await world.start_hosts()
    world.load(sizes.tasks, per_second=sizes.tasks / 10)
    await world.until(f"{part} stops itself", lambda: bool(_stopped_children(world.server.pid)))
    begun = time.monotonic()

    def killed() -> bool:
        said = "a part is killed, for its event loop does not run"
        return any(line.get("event") == said and line["part"] == part for line in world.server.log)

    await world.until(f"the supervisor kills {part}", killed, within=2 * NOTICED_WITHIN)
    seen = time.monotonic()
    world.noticed(seen - begun, "the supervisor")
    await world.recover(since=seen)
    await world.work_done()
    left = {loss.agent for loss in world.books.losses}
    world.row.note = f"{len(left)} of {len(world.agents)} agents lost their session"


async def _gateway_stopped(world: World, sizes: Sizes) -> None:
    await _part_stopped(world, sizes, "gateway-1", f"results.after_receive=stop@{max(1, sizes.tasks // 12)}")
    if not world.books.losses:
        world.row.problems.append("no agent lost its session: the gateway that was stopped had none")


async def _worker_stopped(world: World, sizes: Sizes) -> None:
    await _part_stopped(world, sizes, "worker", "schedules.after_run=stop@30")
    if world.books.losses:
        world.row.problems.append(f"{len(world.books.losses)} agents lost their session")


async def _burst(world: World) -> Counter[grpc.StatusCode]:
    """Wait until the server stands still, then ask more than waits by default; return how that ended."""
    # A question that costs little: what is tried is that calls wait. The server gives a call that reads 10 s,
    # and thousands that ask the database take longer than that where cores are slow or shared.
    request = server_service_pb2.GetServerInfoRequest()
    servers: list[Any] = [
        server_service_pb2_grpc.ServerServiceStub(world.admin().channel) for _ in range(_CONNECTIONS)
    ]
    # Connected before, so that what is tried is the calls and not the handshakes.
    await asyncio.gather(*(server.GetServerInfo(request) for server in servers))
    while True:
        try:
            await servers[0].GetServerInfo(request, timeout=_PROBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            break
        await asyncio.sleep(LOOK)
    calls = [
        server.GetServerInfo(request, timeout=_CALL_SECONDS)
        for _ in range(_CALLS_OF_EACH)
        for server in servers
    ]
    return Counter(await asyncio.gather(*(call.code() for call in calls)))


async def _stalled(world: World, sizes: Sizes) -> None:
    point = f"telemetry.after_receive=stall={_STALL_SECONDS}s@{sizes.agents * 13}"
    await world.begin(sizes.agents, failpoints=point)
    await world.start_hosts()
    await world.all_connected()
    world.load(sizes.tasks, per_second=sizes.tasks / 6)
    async with asyncio.timeout(2 * _CALL_SECONDS):
        codes = await _burst(world)
    await world.work_done()
    failed = {code.name: count for code, count in codes.items() if code is not grpc.StatusCode.OK}
    if failed:
        world.row.problems.append(f"of {codes.total():,} calls that waited at once some failed: {failed}")
    slowest = world.callers.slowest
    if slowest < _STALL_SECONDS / 2:
        world.row.problems.append(f"no call waited: the slowest took {slowest:.1f} s")
    if world.callers.errors:
        world.row.problems.append(f"calls failed: {dict(world.callers.errors)}")
    ended = [loss.what for loss in world.books.losses] + [failure.what for failure in world.books.failures]
    if ended:
        world.row.problems.append(f"streams ended: {len(ended)}, among them {ended[0]}")
    world.row.note = f"{codes.total():,} calls at once; slowest of the others {slowest:.1f} s"
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
    Fault(
        "server stalled",
        f"the server's event loop is kept for {_STALL_SECONDS} s under load, and thousands of calls come",
        _stalled,
    ),
    Fault(
        f"one gateway of {_GATEWAYS} is stopped",
        "SIGSTOP of a gateway under load; the supervisor kills it and starts it again",
        _gateway_stopped,
        slow=True,
    ),
    Fault(
        "the worker is stopped",
        "SIGSTOP of the worker after a run of a schedule; the supervisor kills it and starts it again",
        _worker_stopped,
        slow=True,
    ),
)
