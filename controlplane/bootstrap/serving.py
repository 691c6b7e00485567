"""A server as a program: the machine is looked at, the database brought up, and signals end it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

import structlog

from controlplane import failpoints, preflight
from controlplane.bootstrap.engines import location_of
from controlplane.bootstrap.part import Place
from controlplane.bootstrap.server import Server
from controlplane.clock import SystemClock
from controlplane.observability import service_manager
from controlplane.preflight import StartRefused
from controlplane.settings import Settings, notify_socket
from controlplane.storage import migrate
from controlplane.storage.backup import restoring
from controlplane.storage.sqlite import filling
from controlplane.supervisor.lifeline import Lifeline
from controlplane.supervisor.supervising import supervise
from controlplane.trust.layout import load
from controlplane.trust.setup import refresh_server

_log = structlog.get_logger(__name__)

_COLLECT_AFTER = (5_000, 20, 50)


def _settle_memory() -> None:
    """Let the garbage collector leave alone what stays, and look less often at the rest.

    Every message makes some hundred objects and lets nearly all of them go by themselves. With Python's
    own threshold of 700 that is a look at the young ones every few messages, and at the whole fleet
    every few thousand; with a much larger one each look stops the event loop for long (docs/decisions
    has the measurement).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def serve(
    settings: Settings, stop: asyncio.Event, now: asyncio.Event, place: Place | None = None
) -> None:
    """Run a server until ``stop`` is set, in this process or, with several gateways, in one for each part.

    Once ``now`` is set too, a supervisor waits for no part any more. ``place`` is given where
    a supervisor has started this process. Raises ``StartRefused``, ``DataFolderError``,
    ``DatabaseUnusableError`` or ``ServiceError`` where it cannot start; each says what to do.
    """
    preflight.check_split(settings.split(), alone=settings.alone)
    with preflight.check(settings.data_dir, settings.max_agents, shared=not settings.alone):
        if place is None:
            await _prepare(settings)
        if settings.gateways > 1:
            await supervise(settings, stop, now)
        else:
            await _serve(settings, stop, place)


async def _prepare(settings: Settings) -> None:
    if await asyncio.to_thread(restoring.finish, settings.data_dir):
        _log.warning("an interrupted restore was finished", data_dir=str(settings.data_dir))
    refresh_server(settings.data_dir, SystemClock().now())


async def _serve(settings: Settings, stop: asyncio.Event, place: Place | None) -> None:
    part = place.part if place else None
    # A part that was killed at one is not to be killed there for ever.
    if part is None or not part.restarts:
        try:
            failpoints.arm(filling.arm(settings.failpoints), part.short if part else "")
        except ValueError as error:
            raise StartRefused(str(error)) from None
    if part is not None:
        structlog.contextvars.bind_contextvars(part=part.short)
    trust = load(settings.data_dir)
    before, after = await asyncio.to_thread(migrate.upgrade, location_of(settings))
    if before != after:
        _log.info("database upgraded", before=before, after=after)
    server = Server(settings, trust, part=part)
    ports = await server.start()
    _settle_memory()
    ends: list[Coroutine[Any, Any, object]] = [stop.wait(), server.failed.wait()]
    manager = None
    running: asyncio.Task[None] | None = None
    if place is None:
        manager = notify_socket()
        service_manager.notify(manager, service_manager.READY, "STATUS=serving")
    else:
        lifeline = Lifeline(place.lifeline)
        await lifeline.serving(asdict(ports))
        ends.append(lifeline.ended())
        # To the very end: a part that drains slowly by itself is no dead one.
        running = asyncio.create_task(lifeline.runs())
    waits = [asyncio.ensure_future(end) for end in ends]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if server.failed.is_set():
        # Nothing can be committed any more: ending at once loses nothing, and is seen.
        raise StartRefused("a part of the server has failed; the log says which")
    service_manager.notify(manager, service_manager.STOPPING, "STATUS=draining")
    await server.stop()
    if running is not None:
        running.cancel()
