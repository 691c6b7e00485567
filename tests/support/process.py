"""The real server in a process of its own: started, watched, killed, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.transport.listeners import Ports
from tests.support.site import HOST, Site, http_get

REPOSITORY = Path(__file__).parents[2]
START_PATIENCE = 60.0


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without settings of the caller's, with the repository's code."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEETWRIGHT_")}
    path = f"{REPOSITORY}:{REPOSITORY / 'proto/python'}"
    return {**clean, "PYTHONPATH": path, **variables}


async def spawn(
    program: str,
    *arguments: str,
    preexec: Callable[[], None] | None = None,
    devnull: bool = False,
    variables: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start a command of this environment with its output in pipes, or thrown away."""
    output = asyncio.subprocess.DEVNULL if devnull else asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name(program)),
        *arguments,
        env=environment(variables or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=preexec,
    )


def settings_of(folder: Path, ports: Ports | None = None, **settings: str | int) -> dict[str, str]:
    """Return the environment variables of a server on ``folder``; without ``ports``, on any."""
    ports = ports or Ports(0, 0, 0, 0)
    values: dict[str, str | int] = {
        "data_dir": str(folder),
        "bind_host": HOST,
        "agents_port": ports.agents,
        "admin_port": ports.admin,
        "enrollment_port": ports.enrollment,
        "health_port": ports.health,
        "max_agents": 1000,
        "log_format": "json",
        "drain_window": "100ms",
        "drain_grace": "1s",
    }
    return {f"FLEETWRIGHT_{name.upper()}": str(value) for name, value in {**values, **settings}.items()}


async def refused_start(
    settings: dict[str, str], preexec: Callable[[], None] | None = None
) -> tuple[int, str]:
    """Start a server that must not come up; return its exit status and what it said to people."""
    process = await spawn("fleetwright", "serve", preexec=preexec, variables=settings)
    async with asyncio.timeout(START_PATIENCE):
        out, errors = await process.communicate()
    return process.returncode or 0, (errors + out).decode()


@dataclass
class ServerProcess(Site):
    """A site whose server can die."""

    process: asyncio.subprocess.Process = field(kw_only=True)
    log: list[dict[str, Any]] = field(default_factory=list)
    reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    async def died(self) -> int:
        """Wait for the end of the process; return its status, negative for a signal."""
        async with asyncio.timeout(START_PATIENCE):
            status = await self.process.wait()
            if self.reading is not None:
                await self.reading
        return status

    async def terminate(self) -> int:
        """Ask it to drain; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.died()


async def start(folder: Path, ports: Ports | None = None, **settings: str | int) -> ServerProcess:
    """Start a server and return it once /readyz says so."""
    process = await spawn("fleetwright", "serve", variables=settings_of(folder, ports, **settings))
    serving: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()
    log: list[dict[str, Any]] = []
    reading = asyncio.create_task(_follow(process, log, serving))
    async with asyncio.timeout(START_PATIENCE):
        bound = await serving
        status, _ = await http_get(bound.health, "/readyz")
    assert status == 200
    return ServerProcess(folder, bound, process=process, log=log, reading=reading)


@asynccontextmanager
async def running(
    folder: Path, ports: Ports | None = None, **settings: str | int
) -> AsyncIterator[ServerProcess]:
    """Run a server for a block; whatever is left of it is killed."""
    server = await start(folder, ports, **settings)
    try:
        yield server
    finally:
        await server.close()
        if server.process.returncode is None:
            with suppress(ProcessLookupError):
                server.process.kill()
        await server.died()


async def _follow(
    process: asyncio.subprocess.Process, log: list[dict[str, Any]], serving: asyncio.Future[Ports]
) -> None:
    """Read the log of a server to its end; the line ``serving`` names the ports."""

    async def errors(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line.decode(errors="replace").rstrip()}
            log.append(entry)
            if entry.get("event") == "serving" and not serving.done():
                # A process that has not every role does not listen for everybody.
                serving.set_result(
                    Ports(*(entry.get(name, 0) for name in ("agents", "admin", "enrollment", "health")))
                )

    assert process.stdout is not None
    assert process.stderr is not None
    await asyncio.gather(errors(process.stdout), errors(process.stderr))
    if not serving.done():
        serving.set_exception(AssertionError(f"the server did not come up: {log}"))
