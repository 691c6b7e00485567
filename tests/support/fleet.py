"""A small fleet of real engines on invented hosts, which keeps its own books of what it was promised."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.host import AttemptReporter
from agent_sim.protocol.agent import Agent
from agent_sim.protocol.clock import SystemClock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.identity import AgentIdentity, MemoryIdentityStore
from agent_sim.protocol.journal import MemoryJournal
from agent_sim.protocol.observer import Observer

QUICK = timedelta(milliseconds=100)
METRIC = "test.value_count"


class Effects:
    """Every effect of every host, appended and synced, outside the product."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def happen(self, task: str) -> None:
        """Write down one effect of ``task``."""
        os.write(self._descriptor, f"{task}\n".encode())
        os.fsync(self._descriptor)

    def by_task(self) -> Counter[str]:
        """Return how often each task had its effect."""
        return Counter(self._path.read_text().split())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class InventedHost:
    """Has an effect for each task, and measures numbers that never repeat."""

    def __init__(self, name: str, effects: Effects, numbers: itertools.count[int]) -> None:
        self._name = name
        self._effects = effects
        self._numbers = numbers

    def facts(self) -> work_pb2.HostFacts:
        """Return an invented name."""
        return work_pb2.HostFacts(hostname=self._name, os_family="linux")

    def task_kinds(self) -> Sequence[str]:
        """Return what it knows."""
        return ("echo",)

    def inventory_digest(self) -> str:
        """Return none."""
        return ""

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        """Return three points whose values no other point of the fleet has."""
        points = []
        for _ in range(3):
            point = work_pb2.TelemetryPoint(metric=METRIC, value=float(next(self._numbers)))
            point.time.FromDatetime(datetime.now(UTC))
            points.append(point)
        return points

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Have the effect and answer the echo."""
        await asyncio.to_thread(self._effects.happen, assignment.task)
        payload = assignment.spec.echo.payload
        await reporter.output(work_pb2.OUTPUT_STREAM_STDOUT, payload)
        return work_pb2.AttemptResult(
            outcome=work_pb2.OUTCOME_SUCCEEDED, echo=work_pb2.EchoResult(payload=payload)
        )


class BookkeepingJournal(MemoryJournal):
    """Keeps the values of the points that the server has acknowledged."""

    def __init__(self, acknowledged: set[float]) -> None:
        super().__init__()
        self._acknowledged = acknowledged
        self._values: dict[int, float] = {}
        self._appended = 0

    async def append_points(self, points: Sequence[work_pb2.TelemetryPoint]) -> int:
        """Queue points and remember their numbers."""
        for point in points:
            self._appended += 1
            self._values[self._appended] = point.value
        return await super().append_points(points)

    async def acknowledge_points(self, last_sequence: int) -> int:
        """Write down what was acknowledged."""
        for sequence in [number for number in self._values if number <= last_sequence]:
            self._acknowledged.add(self._values.pop(sequence))
        return await super().acknowledge_points(last_sequence)


class _Books(Observer):
    def __init__(self, results: dict[str, str], committed: asyncio.Event) -> None:
        self._results = results
        self._committed = committed

    def result_acknowledged(self, attempt_id: str, disposition: str) -> None:
        """Write down the promise."""
        self._results[attempt_id] = disposition
        self._committed.set()


class Fleet:
    """Agents that run until ``stop``; ``results`` and ``points`` are what the server acknowledged to them."""

    def __init__(self, identities: Sequence[AgentIdentity], address: str, effects: Effects) -> None:
        self.results: dict[str, str] = {}
        self.points: set[float] = set()
        self._committed = asyncio.Event()
        self._stopping = asyncio.Event()
        numbers = itertools.count(1)
        self._running = [
            asyncio.create_task(self._agent(identity, address, effects, numbers).run(self._stopping))
            for identity in identities
        ]

    def _agent(
        self, identity: AgentIdentity, address: str, effects: Effects, numbers: itertools.count[int]
    ) -> Agent:
        config = AgentConfig(
            agent_version="test",
            addresses=(address,),
            backoff_base=QUICK,
            backoff_cap=QUICK,
            welcome_timeout=timedelta(seconds=10),
            stop_grace=timedelta(seconds=1),
        )
        host: Any = InventedHost(identity.agent_id, effects, numbers)
        return Agent(
            config,
            host,
            BookkeepingJournal(self.points),
            MemoryIdentityStore(identity),
            SystemClock(),
            random.Random(identity.agent_id),
            _Books(self.results, self._committed),
        )

    async def stop(self) -> None:
        """Let every agent leave in order; raises what any of them failed of."""
        self._stopping.set()
        await asyncio.gather(*self._running)
