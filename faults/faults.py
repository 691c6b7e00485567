"""What a fault is to the harness: a name, words for people, and what breaks the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from faults.world import World


@dataclass(frozen=True)
class Sizes:
    """How large the worlds are that are broken."""

    agents: int = 30
    tasks: int = 300
    fleet: int = 2_000
    """Agents that come back at once."""
    replaying: int = 50
    beating: int = 1_000
    backlog: int = 2_000
    """Points in the journal of each agent that replays."""
    away: float = 60.0
    """Seconds that a database is gone for."""
    patience: float = 120.0
    few_stages: bool = False
    """Workers are killed in some stages of pipelines alone."""


FULL = Sizes()
QUICK = Sizes(
    agents=10, tasks=60, fleet=200, replaying=5, beating=50, backlog=2_000, away=5.0, few_stages=True
)


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    what: str
    """What is done to the product, for people."""
    strike: Callable[[World, Sizes], Awaitable[None]]
    """Begins a world, breaks it, and mends what must be mended; ends when it is whole again."""
    slow: bool = False
    """Takes long whatever the sizes: left out of the short form."""
