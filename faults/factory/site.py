"""A factory that is broken: its keys, its policy, its workers, and what watches them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from controlplane.packaging.rules import Stage
from controlplane.packaging.signing.keys import create_key
from controlplane.trust.layout import DEB_ORIGIN, Layout
from controlplane.trust.tuf.ceremony import TRUSTED_ROOT, initialise
from controlplane.trust.tuf.roles import Expiries, Thresholds
from faults.factory.callers import FactoryCallers
from faults.factory.processes import Machine, Watch
from faults.world import PATIENCE, FaultFailed, World
from tests.support.process import ServerProcess, start

CHANNEL = "stable"
WORKERS = 2
LOOK = 0.1
"""Seconds between two looks at the machine."""
_POLICY = """\
schema: fleetwright.policy/v1
name: faults
version: "1"
description: What has a critical vulnerability is refused. Without components there is nothing to look up.
rules:
  - name: no-critical
    about: finding
    when: finding.in_force && finding.severity == "critical"
    outcome: FAIL
    description: A critical vulnerability affects a component.
"""
# So that a worker that is gone is missed soon, and nothing but pipelines publishes anything meanwhile.
_SETTINGS: dict[str, str | int] = {"process_renewal": "500ms", "process_lease": "3s", "packages_sweep": "1h"}


class Factory:
    """The factory of a world, of one server or of several workers, and what its callers know of it."""

    def __init__(self, world: World, root: Path) -> None:
        self.world = world
        self.watch = Watch()
        self.callers = FactoryCallers(world.admin().channel)
        self.trusted_root = root
        self._scratch: dict[int, Path] = {}
        self._known(world.server, world.folder / "data" / "scratch")

    @property
    def store(self) -> Path:
        """The folder of what is stored by digest."""
        given = self.world.settings.get("packages_dir")
        return Path(str(given)) if given else self.world.folder / "data" / "packages"

    async def serve(self, failpoints: str = "") -> ServerProcess:
        """Start the server; again on the same ports."""
        await self.world.serve(failpoints)
        return self._known(self.world.server, self.world.folder / "data" / "scratch")

    async def start_workers(self, failpoints: str = "") -> list[ServerProcess]:
        """Start the workers, as servers of other machines would be: each has its own scratch folder."""
        return await asyncio.gather(*(self._worker(number, failpoints) for number in range(WORKERS)))

    async def _worker(self, number: int, failpoints: str) -> ServerProcess:
        scratch = self.world.folder / f"scratch-{number}"
        own = {"roles": "worker", "scratch_dir": str(scratch), "failpoints": failpoints}
        worker = await start(self.world.folder / "data", None, **{**self.world.settings, **own})
        self.world.beside.append(worker)
        return self._known(worker, scratch)

    def _known(self, server: ServerProcess, scratch: Path) -> ServerProcess:
        self.watch.servers.add(server.pid)
        self._scratch[server.pid] = scratch
        return server

    def in_stage(self, worker: ServerProcess, stage: Stage) -> bool:
        """Whether a worker has a stage in hand: each has a folder of its own meanwhile."""
        return any(self._scratch[worker.pid].glob(f"process-*/{stage.name.lower()}-*"))

    async def kill(self, server: ServerProcess) -> None:
        """End a process as ``kill -9`` does, also where it is stopped."""
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)
        await self.died(server)

    async def died(self, server: ServerProcess) -> None:
        """Wait for the end of a process that is killed at a place of its own."""
        status = await server.died()
        if status != -signal.SIGKILL:
            raise FaultFailed(f"a process ended with status {status}, and not where it was to be killed")

    async def see_ended(self, request_id: str, since: float) -> None:
        """Wait until the pipeline of a request has ended; note how long after ``since`` that was."""
        await self.callers.ended(self.callers.acknowledged[request_id])
        row = self.world.row
        row.recovered = max(row.recovered or 0.0, time.monotonic() - since)

    async def leaves_nothing(self) -> None:
        """Wait until no process is left of killed servers, and nothing in scratch folders."""
        deadline = time.monotonic() + PATIENCE / 4
        while left := self._left():
            if time.monotonic() > deadline:
                self.world.row.problems += left
                return
            await asyncio.sleep(LOOK)

    def _left(self) -> list[str]:
        pids = self.watch.left(self.world.folder)
        processes = [f"process {pid} has outlived its server" for pid in pids]
        folders = sorted(set(self._scratch.values()))
        return processes + [f"left in scratch: {path}" for folder in folders for path in _left_in(folder)]


def _left_in(scratch: Path) -> list[Path]:
    """Return what is in a scratch folder beside the empty ones of processes that live."""
    if not scratch.exists():
        return []
    living = set(scratch.glob("process-*"))
    return [path for path in scratch.rglob("*") if path not in living]


def _equip(folder: Path) -> Path:
    """Give a data folder the keys that release packages, and one for .debs; returns the trusted root."""
    release = Layout(folder).release_trust
    initialise(
        folder.parent / "offline",
        release,
        now=datetime.now(UTC),
        thresholds=Thresholds(),
        expiries=Expiries(),
        channels=[CHANNEL],
    )
    create_key(release / DEB_ORIGIN, "Faults <faults@example.org>")
    return release / TRUSTED_ROOT


@asynccontextmanager
async def factory_of(
    world: World, *, failpoints: str = "", roles: Sequence[str] = ()
) -> AsyncIterator[Factory]:
    """Give a factory with advisories and without work, in a world of one agent; ``roles`` of its server."""
    policy = world.folder / "policy.yaml"
    policy.write_text(_POLICY)
    # Jobs of other servers on this machine count against other users' limits.
    uid = 60_000 + secrets.randbelow(5_000)
    world.settings |= {**_SETTINGS, "policy_file": str(policy), "isolation_uid": uid}
    if roles:
        world.settings["roles"] = ",".join(roles)
    await world.begin(1, failpoints=failpoints, equip=_equip)
    factory = Factory(world, Layout(world.folder / "data").release_trust / TRUSTED_ROOT)
    await factory.callers.import_advisories()
    watching = asyncio.create_task(_watch(factory.watch))
    try:
        yield factory
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(watch: Watch) -> None:
    while True:
        await asyncio.to_thread(watch.look)
        await asyncio.sleep(LOOK)


async def one_stopped(workers: Sequence[ServerProcess], within: float = PATIENCE) -> ServerProcess:
    """Wait until one of some processes has stopped itself, and return it."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        machine = await asyncio.to_thread(Machine.look)
        if found := [worker for worker in workers if machine.stopped(worker.pid)]:
            return found[0]
        await asyncio.sleep(LOOK / 4)
    raise FaultFailed(f"not within {within:.0f} s: a worker comes to the place where it stops")


async def keep_running(worker: ServerProcess) -> None:
    """Let a process go on whenever it stops itself, until cancelled."""
    while True:
        await one_stopped([worker], within=float("inf"))
        worker.process.send_signal(signal.SIGCONT)
