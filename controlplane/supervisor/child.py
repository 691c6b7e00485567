"""One part as the supervisor sees it: a child process, its lifeline, its ports, its history."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from contextlib import suppress

import structlog

from controlplane.settings import Settings
from controlplane.supervisor.lifeline import SERVING
from controlplane.supervisor.plan import PlannedPart
from controlplane.supervisor.rules import LOOK, SILENT, Restarts, Silence

_log = structlog.get_logger(__name__)

_LINE = 4096


class Child:
    """Runs one part: start it, wait for it to serve or to end, ask it to drain, kill it.

    One that serves and whose event loop does not run any more is killed.
    """

    def __init__(self, part: PlannedPart, supervisor_id: str, settings: Settings, agents_port: int) -> None:
        self.part = part
        self._full_name = f"{supervisor_id}/{part.name}"
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._draining = False
        self._lifeline: asyncio.StreamWriter | None = None
        self.restarts = Restarts()
        self.served = asyncio.Event()
        """Set once the part has served for the first time."""
        # What the system chose at the first start stays: others know it by then.
        self.ports = {
            "agents": agents_port,
            "admin": settings.admin_port,
            "enrollment": settings.enrollment_port,
            "health": part.health_port,
        }

    @property
    def pid(self) -> int:
        """Process id; 0 before the first start."""
        return self._process.pid if self._process else 0

    async def run(self) -> int:
        """Start the part and wait for its end; returns its exit status, negative for a signal.

        ``restarts`` and ``ports`` tell of it meanwhile.
        """
        silence = Silence()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # Signals of a terminal go to a whole group: only the supervisor is to get them.
                    start_new_session=True,
                )
            if self._draining:
                self.ask_to_drain()
            reader, self._lifeline = await asyncio.open_connection(sock=ours, limit=_LINE)
        except BaseException:
            ours.close()
            raise
        serves = asyncio.Event()
        tasks = [
            asyncio.create_task(self._hear(reader, silence, serves)),
            asyncio.create_task(self._watch(silence, serves)),
        ]
        try:
            return await self._process.wait()
        finally:
            for task in tasks:
                task.cancel()
            self._lifeline.close()

    def _command(self, lifeline: int) -> list[str]:
        settings, ports = self._settings, self.ports
        return [
            *(sys.executable, "-m", "controlplane.cli", "serve"),
            *("--data-dir", str(settings.data_dir)),
            *("--bind-host", settings.bind_host),
            *("--agents-port", str(ports["agents"])),
            *("--admin-port", str(ports["admin"])),
            *("--enrollment-port", str(ports["enrollment"])),
            *("--health-port", str(ports["health"])),
            *("--max-agents", str(settings.max_agents)),
            *("--role", self.part.role.value),
            *("--gateways", "1"),
            *("--part", self._full_name),
            *("--restarts", str(self.restarts.count)),
            *("--lifeline", str(lifeline)),
        ]

    async def _hear(self, reader: asyncio.StreamReader, silence: Silence, serves: asyncio.Event) -> None:
        while line := await reader.readline():
            silence.heard()
            told = json.loads(line)
            if told["state"] == SERVING:
                self.ports |= {name: port for name, port in told["ports"].items() if port}
                self.restarts.served(asyncio.get_running_loop().time())
                self.served.set()
                serves.set()

    async def _watch(self, silence: Silence, serves: asyncio.Event) -> None:
        # One that is being started says nothing yet: it may upgrade a database, or wait for one. How long a
        # drain may take is the supervisor's to say.
        await serves.wait()
        while not self._draining:
            await asyncio.sleep(LOOK.total_seconds())
            if silence.looked() and not self._draining:
                _log.warning(
                    "a part is killed, for its event loop does not run",
                    part=self.part.name,
                    pid=self.pid,
                    silent=str(SILENT),
                )
                self.kill()
                return

    def ask_to_drain(self) -> None:
        """Send SIGTERM; to one that is being started, once it is."""
        self._draining = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
