"""What every measure stands on: sites, servers of both kinds, and their loads."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent_sim.fleet.machine import allow_connections
from bench import durability, machine, site
from bench.backing import Backing
from bench.children import BenchFailed, Child, Children
from controlplane.preflight import RESERVED_FILES
from demo.processes import log_event

Say = Callable[[str], None]

WANTED = 10_000
"""Agents of the largest fleet, where this machine lets a process have so many connections."""

LEAST = 4_000
"""Fewer than that say nothing of growth."""

_SPARE = 100
"""Sessions that a server may hold beside those that are measured."""

_SETTLED = 0.02
"""CPU seconds in a tenth of a second below which a server that nobody asks anything counts as quiet."""


def most_agents() -> int:
    """Return how many agents fit into one server of this machine, at most ``WANTED``.

    Raises the soft limit of open files to the hard one, for every child too. Raises ``BenchFailed``
    where fewer than ``LEAST`` fit.
    """
    allow_connections(0)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fit = WANTED if files == resource.RLIM_INFINITY else min(WANTED, files - RESERVED_FILES - _SPARE)
    if fit < LEAST:
        raise BenchFailed(
            f"this process may open {files} files, which is enough for {max(0, fit)} agents; "
            f"{LEAST} are the least to measure with: raise the limit (ulimit -Hn)"
        )
    return fit


_LISTENERS = ("agents", "admin", "enrollment", "health")

HOST = "127.0.0.1"


@dataclass
class Side:
    """A server and the load that drives it.

    ``launch`` starts the server once more, on the same folder and ports; ``port`` is that of agents. It
    takes the instant of the monotonic clock before which a yardstick does not listen.
    """

    server: Child
    load: Child
    port: int
    launch: Callable[[float], Child]
    durability: str = ""

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL), all of its processes at once."""
        family = machine.family(self.server.pid)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.process.wait()
        # Its parts are nobody's children now. One that is not gone yet would be taken for the new server.
        machine.wait_until_ended(family)

    def restart(self, when: float = 0, within: float = 60) -> float:
        """Start the server again, a yardstick for ``when``; returns when it listens (monotonic clock)."""
        self.server = self.launch(when)
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if _listens(self.port):
                return time.monotonic()
            time.sleep(0.005)
        raise self.server.failed(f"did not listen again within {within:.0f} s")

    def rate(self, count: str, **what: object) -> float:
        """Let the load do something; return how much of ``count`` for a CPU second of the server."""
        before = self.server.cpu()
        done = self.load.ask(**what)
        return float(done[count]) / (self.server.cpu() - before)

    def connect(self, number: int) -> float:
        """Connect so many agents; return connects for a CPU second of the server."""
        before = self.server.cpu()
        self.load.ask(do="connect", number=number)
        return number / (self.server.cpu() - before)

    def quiet(self, within: float = 20) -> None:
        """Wait until the server has done what it still had to do."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            before = self.server.cpu()
            time.sleep(0.1)
            if self.server.cpu() - before < _SETTLED:
                return

    def stop(self) -> None:
        """End both at once: what is measured is over, and the data is thrown away."""
        for child in (self.load, self.server):
            child.process.kill()
            child.process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port)) as connection:
            # While nobody listens, whoever tries from a port that happens to be this one meets itself.
            return bool(connection.getsockname() != connection.getpeername())
    except ConnectionRefusedError:
        return False


@dataclass
class Stage:
    """A scratch folder, what runs in it, and how large a run is."""

    folder: Path
    children: Children
    say: Say
    quick: bool = False
    windows: int = 5
    fit: int = WANTED
    backing: Backing = field(default_factory=Backing)
    _sites: int = field(default=0, init=False)

    def size(self, whole: int, quick: int) -> int:
        """Return how many: fewer in a quick run."""
        return quick if self.quick else whole

    def agents(self, whole: int, quick: int) -> int:
        """Return how many agents: fewer in a quick run, and never more than fit."""
        return min(self.fit, self.size(whole, quick))

    def site(self, agents: int) -> Path:
        """Make a data folder with so many enrolled agents."""
        self._sites += 1
        folder = self.folder / f"site-{self._sites}"
        self.say(f"enrolling {agents:,} agents")
        site.make(folder, self.backing.location(folder), agents)
        return folder

    def product(self, folder: Path, agents: int, settings: Mapping[str, str] | None = None) -> Side:
        """Start the product's server on ``folder``, and a load."""
        server = self._serve(folder, agents, settings or {}, dict.fromkeys(_LISTENERS, 0))
        serving = log_event(server, "serving", 60)
        ports = {name: serving[name] for name in _LISTENERS}
        return Side(
            server,
            self.load(folder, ports["agents"], ports["admin"]),
            ports["agents"],
            lambda _when: self._serve(folder, agents, settings or {}, ports),
            durability.describe(self.backing.location(folder)),
        )

    def _serve(
        self, folder: Path, agents: int, settings: Mapping[str, str], ports: Mapping[str, int]
    ) -> Child:
        """Start the product's server on what the run stands on."""
        arguments = ["serve", "--data-dir", str(folder), "--bind-host", HOST]
        arguments += [f"--{name}-port={port}" for name, port in ports.items()]
        server = self.children.launch(
            "server",
            "bench.server",
            [*arguments, *self.backing.arguments(), "--max-agents", str(agents + _SPARE)],
            {"FLEETWRIGHT_LOG_FORMAT": "json", **self.backing.variables(folder), **settings},
        )
        server.beside = self.backing.pid
        return server

    def yardstick(self, folder: Path) -> Side:
        """Start a yardstick with the certificates of ``folder``, and a load."""

        def launch(port: int, when: float) -> Child:
            return self.children.launch("yardstick", "bench.yardstick", [str(folder), str(port), str(when)])

        server = launch(0, 0)
        port = server.hear()["agents"]
        return Side(server, self.load(folder, port), port, lambda when: launch(port, when))

    def load(self, folder: Path, *ports: int) -> Child:
        """Start a load on the port of agents, and of administrators where it creates tasks."""
        return self.children.launch("load", "bench.load", [str(folder), *map(str, ports)])

    def interrupted(self, side: Side) -> None:
        """Raise ``BenchFailed`` where a load lost streams: what was measured is then not what it says."""
        lost = side.load.ask(do="losses")
        if lost:
            raise BenchFailed(f"streams were lost: {lost}\n{side.server.tail()}")
