"""The supervisor: starts every part, starts again what ends, and drains in order."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

import structlog

from controlplane.observability import service_manager
from controlplane.preflight import StartRefused
from controlplane.settings import Role, Settings, notify_socket
from controlplane.supervisor.child import Child
from controlplane.supervisor.plan import plan

_log = structlog.get_logger(__name__)

_AFTER_DRAIN = timedelta(seconds=15)
"""What a part gets beside window and grace, to commit and to close, before it is killed."""

_DRAIN_ORDER = (Role.GATEWAY, Role.API, Role.WORKER)
"""Agents are sent away first, and who closes the sessions of others goes last."""


async def supervise(settings: Settings, stop: asyncio.Event, now: asyncio.Event) -> None:
    """Run a server of several processes until ``stop`` is set; once ``now`` is, kill what still drains.

    Raises ``StartRefused`` where the port for agents cannot be had or a part cannot be started at all.
    """
    with closing(reserve(settings.bind_host, settings.agents_port)) as reserved:
        await Supervisor(settings, reserved.getsockname()[1]).run(stop, now)


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that holds a port that several processes are to share, and does not listen itself.

    Raises ``StartRefused`` where another program has the port, also one that would share it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
        reserved = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, port))
    except OSError as error:
        raise StartRefused(
            f"agents port: {host}:{port} cannot be had: {error.strerror}; stop who has it, or set"
            " FLEETWRIGHT_AGENTS_PORT to another"
        ) from error
    return reserved


class Supervisor:
    """The parts of one server on this machine. Kills nothing that it did not start."""

    def __init__(self, settings: Settings, agents_port: int) -> None:
        self._settings = settings
        identity = secrets.token_hex(8)
        self._children = [Child(part, identity, settings, agents_port) for part in plan(settings)]
        self._draining = asyncio.Event()
        self._refused: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, stop: asyncio.Event, now: asyncio.Event) -> None:
        """Run all parts until ``stop``, then drain them. Raises ``StartRefused``."""
        keeping = {child: asyncio.create_task(self._keep(child)) for child in self._children}
        refused = asyncio.create_task(self._refused.get())
        stopped = asyncio.create_task(stop.wait())
        serving = asyncio.create_task(self._say_serving())
        try:
            await asyncio.wait({refused, stopped}, return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            service_manager.notify(notify_socket(), service_manager.STOPPING, "STATUS=draining")
            await self._drain(keeping, now)
        finally:
            for child in self._children:
                child.kill()
            for task in (refused, stopped, serving):
                task.cancel()
            await asyncio.gather(*keeping.values(), return_exceptions=True)
        if refused.done() and not refused.cancelled():
            raise StartRefused(
                f"part {refused.result()} could not be started; its own lines in the log say why"
            )
        _log.info("stopped", supervisor=True)

    async def _keep(self, child: Child) -> None:
        """Run a part again and again, until the drain."""
        loop = asyncio.get_running_loop()
        while not self._draining.is_set():
            status = await self._run(child)
            wait = child.restarts.ended(loop.time())
            if self._draining.is_set():
                return
            if wait is None:
                self._refused.put_nowait(child.part.name)
                return
            _log.warning(
                "a part ended, and is started again",
                part=child.part.name,
                status=status,
                after=str(wait),
                restarts=child.restarts.count,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), wait.total_seconds())

    async def _run(self, child: Child) -> int | str:
        try:
            return await child.run()
        except OSError as error:  # no process could be made: too many of them, or no memory
            return f"not started: {error.strerror}"

    async def _say_serving(self) -> None:
        for child in self._children:
            await child.served.wait()
        ports: dict[str, int] = {}
        for child in self._children:
            ports |= _shown(child)
        _log.info(
            "serving",
            **{name: ports[name] for name in ("agents", "admin", "enrollment") if name in ports},
            health=self._children_by_health()[0].ports["health"],
            parts={child.part.name: child.ports["health"] for child in self._children},
            pids={child.part.name: child.pid for child in self._children},
        )
        service_manager.notify(notify_socket(), service_manager.READY, "STATUS=serving")

    def _children_by_health(self) -> list[Child]:
        first = {Role.API: 0, Role.GATEWAY: 1, Role.WORKER: 2}
        return sorted(self._children, key=lambda child: first[child.part.role])

    async def _drain(self, keeping: Mapping[Child, asyncio.Task[None]], now: asyncio.Event) -> None:
        """Ask the parts to drain, role by role; kill what takes too long, or all once ``now`` is set."""
        self._draining.set()
        limit = self._settings.drain_window + self._settings.drain_grace + _AFTER_DRAIN
        at_once = asyncio.create_task(now.wait())
        for role in _DRAIN_ORDER:
            children = [child for child in self._children if child.part.role is role]
            for child in children:
                child.ask_to_drain()
            await _all_done([keeping[child] for child in children], at_once, limit)
            for child in children:
                if not keeping[child].done():
                    _log.warning("a part is killed, for it did not end", part=child.part.name, pid=child.pid)
                    child.kill()
        at_once.cancel()


async def _all_done(tasks: list[asyncio.Task[None]], at_once: asyncio.Task[Any], limit: timedelta) -> None:
    """Wait for all ``tasks``, at most for ``limit``, and no longer than until ``at_once`` is done."""
    together = asyncio.gather(*tasks, return_exceptions=True)
    waited: set[asyncio.Future[Any]] = {together, at_once}
    await asyncio.wait(waited, timeout=limit.total_seconds(), return_when=asyncio.FIRST_COMPLETED)


def _shown(child: Child) -> dict[str, int]:
    of_role = {Role.GATEWAY: ("agents",), Role.API: ("admin", "enrollment"), Role.WORKER: ()}
    return {name: child.ports[name] for name in of_role[child.part.role]}
