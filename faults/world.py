"""One installation that is broken: its server, its agents, its callers, and the books of all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleetwright.v1 import agent_registry_service_pb2, task_service_pb2

from agent_sim import failpoints as agent_failpoints
from agent_sim.protocol.identity_folder import FolderIdentityStore
from controlplane.transport.listeners import Ports
from devtools.ports import HOST, free_ports
from faults import audit
from faults.books import Books, effects_by_task
from faults.callers import Callers
from faults.hosts import HostsConfig
from faults.programs import HostsProcess
from faults.report import NOTICED_WITHIN, Row
from tests.support.admin import Admin
from tests.support.folders import make_folder
from tests.support.process import ServerProcess, start
from tests.support.site import enroll

LOOK = 0.05
"""Seconds between two looks at the books."""
PATIENCE = 120.0
"""Seconds within which whatever is waited for has to happen; a row that waits for longer has failed."""
_ENROLLING = 8
_PROBED = 50
# Short, so that what a fault leaves behind is looked at soon.
SETTINGS: dict[str, str | int] = {
    "telemetry_interval": "100ms",
    "tasks_sweep": "200ms",
    "lease_time": "5s",
    "presence_sweep": "500ms",
    "max_agents": 5_000,
}


class FaultFailed(Exception):
    """A row cannot go on; the text says what did not happen, and within which time."""


class FaultSkipped(Exception):
    """This machine does not allow what a row needs; the text says what."""


class World:
    """Started by ``begin``, broken by a row, and counted by ``finish``."""

    def __init__(self, folder: Path, row: Row, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.row = row
        self.say = say
        self.agents: tuple[str, ...] = ()
        self.witness = folder / "witness"
        self.books = Books(folder / "books")
        self.settings: dict[str, str | int] = dict(SETTINGS)
        agents, admin, enrollment = free_ports(3)
        self.ports = Ports(agents, admin, enrollment, 0)
        self.hosts: list[HostsProcess] = []
        self.interrupted_allowed = False
        """Whether any task may end INTERRUPTED: its agent's process was ended while it ran."""
        self.unfinished: set[str] = set()
        """The tasks that may: those that stood in a killed agent's journal without a result."""
        self.drops_allowed = False
        """Whether agents may give up telemetry: they have no room for it."""
        self.cleanup = ExitStack()
        """What a row started beside servers and hosts; ended after them."""
        self.stops_allowed = False
        """Whether agents may give up for good: another process has taken their identity."""
        self.beside: list[ServerProcess] = []
        """Processes of the server that a row started beside the first; ended before it."""
        self._servers: list[ServerProcess] = []
        self._callers: Callers | None = None
        self._loading: list[asyncio.Task[list[str]]] = []
        self._lives = 0

    # --- the parts

    @property
    def server(self) -> ServerProcess:
        """The server that was started last."""
        return self._servers[-1]

    @property
    def callers(self) -> Callers:
        """The programs that create tasks."""
        if self._callers is None:
            self._callers = Callers(self.admin)
        return self._callers

    def admin(self) -> Admin:
        """Return a new connection of the first administrator."""
        return self.server.admin()

    @property
    def address(self) -> str:
        """Where the server is for agents."""
        return f"{HOST}:{self.ports.agents}"

    async def serve(self, failpoints: str = "") -> None:
        """Start the server, again on the same ports where it was there before."""
        self._servers.append(
            await start(self.folder / "data", self.ports, **{**self.settings, "failpoints": failpoints})
        )

    async def begin(
        self, agents: int, *, failpoints: str = "", equip: Callable[[Path], object] | None = None
    ) -> None:
        """Make an installation, start its server and enrol its agents; they do not run yet.

        ``equip`` does with the data folder what an operator does before the first start.
        """
        await asyncio.to_thread(make_folder, self.folder / "data")
        if equip is not None:
            await asyncio.to_thread(equip, self.folder / "data")
        await self.serve(failpoints)
        self.agents = tuple(f"node-{number}" for number in range(agents))
        _, token = await self.admin().token(max_uses=agents)
        gate = asyncio.Semaphore(_ENROLLING)
        stub = self.server.enrollment()

        async def one(agent: str) -> None:
            async with gate:
                identity = await enroll(stub, agent, token)
            await asyncio.to_thread(self._keep, agent, identity)

        async with asyncio.TaskGroup() as group:
            for agent in self.agents:
                group.create_task(one(agent))

    def _keep(self, agent: str, identity: Any) -> None:
        folder = self.folder / "identities" / agent
        folder.mkdir(mode=0o700, parents=True)
        FolderIdentityStore(folder).save(identity)

    async def start_hosts(
        self,
        agents: Sequence[str] | None = None,
        *,
        address: str | None = None,
        failpoint: str = "",
        **wishes: Any,
    ) -> HostsProcess:
        """Start agents in a process of their own; ``wishes`` are fields of ``HostsConfig``."""
        chosen = tuple(agents or self.agents)
        config = HostsConfig(
            agents=chosen,
            first_number=self.agents.index(chosen[0]),
            life=self._lives,
            identities=str(self.folder / "identities"),
            addresses=(address or self.address,),
            books=str(self.books.path),
            witness=str(self.witness),
        )
        self._lives += 1
        variables = {agent_failpoints.VARIABLE: failpoint} if failpoint else {}
        hosts = await HostsProcess.start(replace(config, **wishes), self.folder, variables)
        self.hosts.append(hosts)
        return hosts

    # --- what happens meanwhile

    def load(self, tasks: int, **wishes: Any) -> None:
        """Let the callers ask for work of all kinds, so many requests, while the row goes on."""
        self._loading.append(asyncio.create_task(self.callers.mix(self.agents, tasks, **wishes)))

    async def until(self, what: str, happened: Callable[[], bool], within: float = PATIENCE) -> None:
        """Wait until ``happened``, looking at the books. Raises ``FaultFailed``."""
        deadline = time.monotonic() + within
        while True:
            self.books.look()
            if happened():
                return
            self._check_programs()
            if time.monotonic() > deadline:
                raise FaultFailed(f"not within {within:.0f} s: {what}")
            await asyncio.sleep(LOOK)

    def _check_programs(self) -> None:
        if self.books.stopped and not self.stops_allowed:
            raise FaultFailed(f"agents gave up: {self.books.stopped[:3]}")
        for loading in self._loading:
            if loading.done() and loading.exception() is not None:
                raise FaultFailed("the callers failed") from loading.exception()

    async def all_connected(self, within: float = PATIENCE) -> None:
        """Wait until every agent holds a session."""
        wanted = set(self.agents)
        await self.until("every agent holds a session", lambda: self.books.live >= wanted, within)

    async def under_load(self) -> None:
        """Wait until every agent is there and work is being done."""
        await self.all_connected()
        await self.until(
            "results and points are acknowledged", lambda: bool(self.books.results and self.books.points)
        )

    def lost_since(self, since: float) -> set[str]:
        """Return the agents whose sessions have ended, as they know it."""
        return {loss.agent for loss in self.books.losses if loss.time >= since}

    async def all_lost(self, since: float, within: float = PATIENCE) -> None:
        """Wait until every agent has seen that its session is gone."""
        agents = set(self.agents)
        await self.until(
            "every agent sees that its session is gone", lambda: self.lost_since(since) >= agents, within
        )

    async def more_results(self) -> None:
        """Wait until another result was acknowledged."""
        self.books.look()
        before = len(self.books.results)
        await self.until("another result is acknowledged", lambda: len(self.books.results) > before)

    async def work_done(self, *, interrupted: bool = False) -> None:
        """Wait until all work is final, and unless ``interrupted`` has had its effect."""
        names: set[str] = set()
        async with asyncio.timeout(PATIENCE):
            for loading in self._loading:
                names |= set(await loading)
        if not interrupted:
            await self.until("all work is done", lambda: names <= effects_by_task(self.witness).keys())
        # What failed has had an effect, and is tried again: the network has to be there for it too.
        await self._all_final(self.admin())

    async def agents_notice(self, since: float) -> None:
        """Wait until every agent has seen that its session is gone; note how long after ``since``."""
        await self.all_lost(since, within=2 * NOTICED_WITHIN)
        self.noticed(max(loss.time for loss in self.books.losses) - since, "agents")

    async def server_notices(self, since: float) -> None:
        """Wait until the server has no agent as ONLINE; note how long after ``since``."""
        admin = self.admin()
        request = agent_registry_service_pb2.ListAgentsRequest(page_size=1, filter="presence = ONLINE")
        while (await admin.agents.ListAgents(request)).agents:
            if time.monotonic() - since > 2 * NOTICED_WITHIN:
                raise FaultFailed(
                    f"agents are ONLINE after {2 * NOTICED_WITHIN:.0f} s without a word of them"
                )
            await asyncio.sleep(LOOK * 4)
        self.noticed(time.monotonic() - since, "the server")

    def noticed(self, seconds: float, who: str) -> None:
        """Note after how long somebody saw the fault."""
        self.row.noticed = max(seconds, self.row.noticed or 0.0)
        if seconds > NOTICED_WITHIN:
            self.row.problems.append(f"noticed by {who} after {seconds:.1f} s, not {NOTICED_WITHIN:.0f} s")

    async def recover(self, since: float) -> None:
        """Wait until every agent is back and new work is done; note how long after ``since`` that was."""
        await self.all_connected()
        chosen = self.agents[:: max(1, len(self.agents) // _PROBED)]
        names = set(await self.callers.create(chosen, len(chosen)))
        await self.until("new work is done", lambda: names <= effects_by_task(self.witness).keys())
        self.row.recovered = time.monotonic() - since

    # --- the end

    async def finish(self) -> None:
        """Wait until all work is over, let the agents leave, and count what is in the books."""
        for loading in self._loading:
            async with asyncio.timeout(PATIENCE):
                await loading
        admin = self.admin()
        await self._all_final(admin)
        await self._all_acknowledged()
        for hosts in self.hosts:
            if hosts.running and (status := await hosts.leave()):
                self.row.problems.append(f"hosts ended with status {status}: {hosts.said()}")
        self.books.look()
        await audit.count(self, admin)

    async def _all_final(self, admin: Admin) -> None:
        open_states = "state = (QUEUED OR LEASED OR RUNNING)"
        deadline = time.monotonic() + PATIENCE
        request = task_service_pb2.ListTasksRequest(page_size=5, filter=open_states)
        while (page := await admin.tasks.ListTasks(request)).tasks:
            if time.monotonic() > deadline:
                self.row.problems.append(
                    f"{page.total_size} tasks not final within {PATIENCE:.0f} s, among them {page.tasks[0]}"
                )
                return
            await asyncio.sleep(LOOK * 4)

    async def _all_acknowledged(self) -> None:
        """Wait until agents were told of their last results: those of tasks that are final already."""
        seen = -1
        while seen != len(self.books.results):
            seen = len(self.books.results)
            await asyncio.sleep(LOOK * 10)
            self.books.look()

    async def close(self) -> None:
        """End everything that was started."""
        for loading in self._loading:
            loading.cancel()
        await asyncio.gather(*self._loading, return_exceptions=True)
        servers = (*self.beside, *self._servers)
        # Before anything is waited for: where the harness is ended, waiting may be cut short.
        for hosts in self.hosts:
            hosts.kill()
        for server in servers:
            with suppress(ProcessLookupError):
                server.process.kill()
        try:
            for hosts in self.hosts:
                await hosts.died(PATIENCE)
            for server in servers:
                await server.close()
                await server.died()
        finally:
            await asyncio.to_thread(self.cleanup.close)


@asynccontextmanager
async def world(folder: Path, row: Row, say: Callable[[str], None]) -> AsyncIterator[World]:
    """Give an installation for a block; nothing of it lives on."""
    made = World(folder, row, say)
    try:
        yield made
    finally:
        await made.close()
