"""One simulated agent: how its parts are put together from its profile and its seed."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from fleetwright.v1 import agent_service_pb2_grpc

from agent_sim.fleet.counters import Counters, MemberObserver, Receipts
from agent_sim.fleet.misbehaviour import dropping, freezing, slow_reading
from agent_sim.fleet.packages import FleetPackages, MemberPackages
from agent_sim.fleet.profiles import Profile
from agent_sim.fleet.simulated_host import SimulatedHost
from agent_sim.fleet.witness import Witness
from agent_sim.protocol.agent import Agent, MakeStub
from agent_sim.protocol.clock import Clock, SystemClock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.identity import IdentityStore
from agent_sim.protocol.journal import Journal
from agent_sim.protocol.served import ServedFiles

VERSION = "0.1.0-simulated"
MAX_POINTS = 2_000
"""Telemetry that one simulated agent holds back: enough for hours, small enough for thousands of them."""
_MAX_SKEW = 3600.0
_NEVER = timedelta(days=10_000)


class SkewedClock(SystemClock):
    """A wall clock that is off by a constant."""

    def __init__(self, offset: timedelta) -> None:
        self._offset = offset

    def now(self) -> datetime:
        """Return the wrong time."""
        return super().now() + self._offset


class Member:
    """A simulated agent before and while it runs."""

    def __init__(
        self,
        agent_id: str,
        profile: Profile,
        seed: str,
        counters: Counters,
        witness: Witness | None,
        receipts: Receipts | None,
        packages: FleetPackages | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.profile = profile
        self._counters = counters
        self._witness = witness
        self._seed = f"{seed}/{agent_id}"
        self._clock = self._make_clock()
        self._served = ServedFiles()
        shared = packages or FleetPackages()
        installing = MemberPackages(shared, agent_id, self._served, self._clock.now)
        rng = self._random("host")
        self.host = SimulatedHost(agent_id, profile, self._clock, rng, self._effect, installing)
        self.observer = MemberObserver(agent_id, counters, receipts, self._random("latencies"))

    def make_agent(self, identities: IdentityStore, addresses: tuple[str, ...], journal: Journal) -> Agent:
        """Put the engine together; call it inside the event loop."""
        hung = self.profile is Profile.HUNG
        config = AgentConfig(
            agent_version=VERSION,
            addresses=addresses,
            # A hung process does not notice that nobody answers it.
            answer_within=_NEVER if hung else AgentConfig.answer_within,
            stop_grace=timedelta(seconds=1) if hung else AgentConfig.stop_grace,
        )
        return Agent(
            config,
            self.host,
            journal,
            identities,
            self._clock,
            self._random("engine"),
            self.observer,
            self._make_stub(),
            self._served,
        )

    def _random(self, purpose: str) -> random.Random:
        """Return a source of its own for each purpose: what one draws, by its timing, moves no other."""
        return random.Random(f"{self._seed}/{purpose}")  # noqa: S311 - simulation, not secrecy

    def _make_clock(self) -> Clock:
        if self.profile is Profile.CLOCK_SKEWED:
            return SkewedClock(timedelta(seconds=self._random("clock").uniform(-_MAX_SKEW, _MAX_SKEW)))
        return SystemClock()

    def _make_stub(self) -> MakeStub:
        if self.profile is Profile.FLAKY:
            return dropping(self._random("network"))
        if self.profile is Profile.SLOW_READER:
            return slow_reading
        if self.profile is Profile.HUNG:
            return freezing()
        return agent_service_pb2_grpc.AgentServiceStub

    async def _effect(self, task: str, attempt_id: str) -> None:
        if self._witness is not None:
            await self._witness.record(task, attempt_id, self.agent_id)
        self._counters.effects += 1
