"""What the parts of one engine share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from fleetwright.v1 import agent_service_pb2_grpc

from agent_sim.host import Host
from agent_sim.protocol.clock import Clock, ServerTime
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.errors import AgentError
from agent_sim.protocol.journal import Journal
from agent_sim.protocol.observer import Observer
from agent_sim.protocol.room import Room


@dataclass(frozen=True)
class EngineContext:
    """The ports and settings of one agent, and the way to end it for good."""

    config: AgentConfig
    host: Host
    journal: Journal
    clock: Clock
    rng: random.Random
    observer: Observer
    make_stub: Callable[[grpc.aio.Channel], agent_service_pb2_grpc.AgentServiceAsyncStub]
    """Makes the client of AgentService on a channel; simulated agents misbehave here."""
    server_time: ServerTime
    room: Room
    fail: Callable[[AgentError], None]
    """End the engine with an error; the first one counts."""

    def jittered(self, seconds: float, share: float = 0.1) -> float:
        """Return ``seconds`` and up to ``share`` of it more."""
        return seconds * (1.0 + self.rng.uniform(0.0, share))
