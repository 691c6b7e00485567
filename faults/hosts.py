"""Simulated hosts in a process of their own, which keep their own books: ``python -m faults.hosts CONFIG``.

Each host is the product's own engine. What it really did goes to the witness, a file
that is synced before the effect counts; what the server promised to it goes to the
books, line by line, so that nothing but the line under way is lost with the process.
The program ends in order where its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import uvloop
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim import failpoints
from agent_sim.fleet.machine import allow_connections
from agent_sim.fleet.profiles import Profile
from agent_sim.fleet.simulated_host import SimulatedHost
from agent_sim.fleet.witness import Witness
from agent_sim.host import AttemptReporter
from agent_sim.protocol.agent import Agent
from agent_sim.protocol.clock import SystemClock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.errors import AgentError
from agent_sim.protocol.identity_folder import FolderIdentityStore
from agent_sim.protocol.journal import Journal, MemoryJournal, SQLiteJournal
from agent_sim.protocol.journal.port import PointRange
from agent_sim.protocol.journal.reserve import DEFAULT_RESERVE_BYTES
from agent_sim.protocol.journal.writer import Worth
from agent_sim.protocol.observer import Observer
from faults.work import fails, output_of

METRIC = "faults.value_count"
_BLOCK = 10_000_000
"""Numbers that one host may give its points in one life of its process; all of them exact in a double."""
_BACKLOG_AT_ONCE = 1_000
_MOST_PAGES = 1_073_741_823
"""What SQLite allows by itself."""
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class HostsConfig:
    """What a process of hosts is made of; paths as text, times in seconds."""

    agents: tuple[str, ...]
    first_number: int
    """Number of the first agent among all of the installation: what makes its points' values unique."""
    life: int
    """How many processes had these agents before; 0 for the first."""
    identities: str
    addresses: tuple[str, ...]
    books: str
    witness: str
    durable: bool = False
    """Journals on disk, in the folders of the identities; else in memory."""
    journals: str = ""
    """A folder for the journals, where it is not that of the identities."""
    reserve_bytes: int = DEFAULT_RESERVE_BYTES
    """What each journal keeps of its disk for results."""
    full: str = ""
    """A file while which is there no journal may grow: for want of a disk of their own that can be filled."""
    points: int = 3
    """Points of one sampling."""
    backlog: int = 0
    """Points that wait in each journal before the agent connects."""
    backoff_base: float = 0.1
    backoff_cap: float = 0.5
    work_seconds: float = 0.0
    """How long each task takes before it has its effect."""
    connects_per_second: float = 500.0
    """How fast the agents begin: a fleet is not switched on at one moment, it is only cut off at one."""

    @classmethod
    def read(cls, path: Path) -> HostsConfig:
        """Read what ``write`` wrote."""
        content = json.loads(path.read_text())
        content["agents"], content["addresses"] = tuple(content["agents"]), tuple(content["addresses"])
        return cls(**content)

    def write(self, path: Path) -> None:
        """Write it where the process reads it."""
        path.write_text(json.dumps(asdict(self)))


class BookWriter(Observer):
    """Writes down what one agent was told, with the time of the machine's monotonic clock."""

    def __init__(self, agent_id: str, descriptor: int) -> None:
        self._agent_id = agent_id
        self._descriptor = descriptor
        self.sent: dict[int, float] = {}
        """Values of the points that may have been sent and were not acknowledged, by their numbers."""

    def write(self, event: str, **what: Any) -> None:
        """Append one line."""
        line = {"e": event, "a": self._agent_id, "t": time.monotonic(), **what}
        os.write(self._descriptor, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def connected(self, epoch: int) -> None:
        """Note a session."""
        self.write("connected", epoch=epoch)

    def disconnected(self, reason: str) -> None:
        """Note its end."""
        self.write("disconnected", reason=reason)

    def failed(self, reason: str, detail: str) -> None:
        """Note a failure."""
        self.write("failed", reason=reason, detail=detail[:200])

    def result_acknowledged(self, attempt_id: str, disposition: str) -> None:
        """Note a promise."""
        self.write("result", attempt=attempt_id, disposition=disposition)

    def points_answered(self, last_sequence: int) -> None:
        """Note a promise, before the agent does anything about it."""
        numbers = [number for number in self.sent if number <= last_sequence]
        if numbers:
            self.write("points", values=[self.sent.pop(number) for number in numbers])

    def points_resumed(self, last_sequence: int) -> None:
        """Note a promise; what was sent beyond it is sent again, be it with other numbers."""
        self.points_answered(last_sequence)
        self.sent.clear()

    def journal_full(self) -> None:
        """Note that there is no room."""
        self.write("full")

    def journal_has_room(self) -> None:
        """Note that there is."""
        self.write("room")

    def points_dropped(self, count: int) -> None:
        """Note points that were given up."""
        self.write("dropped", count=count)

    def beat_answered(self, latency: timedelta) -> None:
        """Note a beat."""
        self.write("beat", latency=latency.total_seconds())


def first_value(number: int, life: int) -> int:
    """Return the value of the first point of an agent in one life of its process."""
    return (number * 8 + life) * _BLOCK


class CountedHost(SimulatedHost):
    """A simulated host whose points have values that no other one has, and that fails as it was asked to."""

    def __init__(self, config: HostsConfig, place: int, witness: Witness, books: BookWriter) -> None:
        agent_id = config.agents[place]

        async def effect(task: str, attempt_id: str) -> None:
            if config.work_seconds:
                await asyncio.sleep(config.work_seconds)
            await witness.record(task, attempt_id, agent_id)

        rng = random.Random(agent_id)  # noqa: S311 - simulation, not secrecy
        super().__init__(agent_id, Profile.HEALTHY, SystemClock(), rng, effect)
        self._count = config.points
        self._next = first_value(config.first_number + place, config.life)
        self._books = books

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Do the work with its effect; then say that it failed where it is to be tried again."""
        await reporter.output(work_pb2.OUTPUT_STREAM_STDOUT, output_of(assignment.spec))
        result = await super().run(assignment, reporter)
        if fails(assignment):
            return work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_FAILED, reason="the first attempt fails")
        return result

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        """Return so many points as the configuration says."""
        if self._count:
            self._books.write("measured", count=self._count)
        return self.take(self._count)

    def take(self, count: int) -> list[work_pb2.TelemetryPoint]:
        """Return the next ``count`` points."""
        points = []
        now = datetime.now(UTC)
        for _ in range(count):
            point = work_pb2.TelemetryPoint(metric=METRIC, value=float(self._next))
            point.time.FromDatetime(now)
            points.append(point)
            self._next += 1
        return points


class BookkeepingJournal:
    """A journal that tells the books which points it gave to be sent; the rest is the journal's own."""

    def __init__(self, journal: Journal, books: BookWriter) -> None:
        self._journal = journal
        self._books = books

    def __getattr__(self, name: str) -> Any:
        """Return what the journal itself has."""
        return getattr(self._journal, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what the journal itself has: whom it tells that it is full."""
        if name in ("_journal", "_books"):
            super().__setattr__(name, value)
        else:
            setattr(self._journal, name, value)

    async def read_points(self, after: int, limit: int, max_bytes: int) -> PointRange:
        """Read points to be sent, and remember them by their numbers."""
        found = await self._journal.read_points(after, limit, max_bytes)
        # Sent once, but given up before anybody acknowledged them: a later number promises nothing of these.
        for given_up in [number for number in self._books.sent if after < number < found.first_sequence]:
            del self._books.sent[given_up]
        for sequence, point in enumerate(found.points, start=found.first_sequence):
            read = work_pb2.TelemetryPoint.FromString(point)
            # An agent has points of its own too, about itself; their values are not unique.
            if read.metric == METRIC:
                self._books.sent[sequence] = read.value
        return found


async def _keep_from_growing(journal: SQLiteJournal, switch: Path) -> None:
    """Let the file of ``journal`` not grow while ``switch`` is there: to SQLite, that is a full disk."""

    def limit(database: sqlite3.Connection) -> None:
        database.execute(f"PRAGMA max_page_count={1 if switch.exists() else _MOST_PAGES}")

    while True:
        # In the thread of the connection that writes, among what that does.
        await journal._writer.run(limit, Worth.RESERVE)
        await asyncio.sleep(_LOOK_SECONDS)


async def run(config: HostsConfig) -> None:
    """Run the agents until standard input ends."""
    descriptor = os.open(config.books, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    witness = Witness(Path(config.witness))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), stop.set)
    loop.add_signal_handler(signal.SIGUSR1, _say_what_waits)
    try:
        await asyncio.gather(
            *(_run_one(config, place, witness, descriptor, stop) for place in range(len(config.agents)))
        )
    finally:
        await witness.close()
        os.close(descriptor)


async def _run_one(
    config: HostsConfig, place: int, witness: Witness, descriptor: int, stop: asyncio.Event
) -> None:
    agent_id = config.agents[place]
    folder = Path(config.identities) / agent_id
    books = BookWriter(agent_id, descriptor)
    host = CountedHost(config, place, witness, books)
    kept: Journal = MemoryJournal()
    limiting = None
    if config.durable:
        of_agent = Path(config.journals) / agent_id if config.journals else folder
        kept = SQLiteJournal(of_agent / "journal.sqlite3", reserve_bytes=config.reserve_bytes)
        if config.full:
            limiting = asyncio.create_task(_keep_from_growing(kept, Path(config.full)))
    journal = cast(Journal, BookkeepingJournal(kept, books))
    agent_config = AgentConfig(
        agent_version="0.1.0-faults",
        addresses=config.addresses,
        backoff_base=timedelta(seconds=config.backoff_base),
        backoff_cap=timedelta(seconds=config.backoff_cap),
        stop_grace=timedelta(seconds=5),
    )
    rng = random.Random(f"{agent_id}/{config.life}/engine")  # noqa: S311 - simulation, not secrecy
    try:
        for start in range(0, config.backlog, _BACKLOG_AT_ONCE):
            await journal.append_points(host.take(min(_BACKLOG_AT_ONCE, config.backlog - start)))
        await asyncio.sleep(place / config.connects_per_second)
        identities = FolderIdentityStore(folder)
        await Agent(agent_config, host, journal, identities, SystemClock(), rng, books).run(stop)
    except AgentError as error:
        books.write("stopped", error=type(error).__name__, detail=str(error)[:200])
    finally:
        if limiting is not None:
            limiting.cancel()
        await journal.close()


def _say_what_waits() -> None:
    """Write to the log where each task stands: for whoever looks for why something does not end."""
    for task in asyncio.all_tasks():
        print(task, file=sys.stderr, flush=True)


def main() -> None:
    """Run the program."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s", stream=sys.stderr)
    config = HostsConfig.read(Path(sys.argv[1]))
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    allow_connections(len(config.agents))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(config))


if __name__ == "__main__":
    main()
