"""Budgets, and what a run makes of its windows. Pure: nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from statistics import median, quantiles
from typing import Any


class Of(Enum):
    """What a budget bounds."""

    RATIO = "times the yardstick"
    VALUE = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget of the design. ``at_most`` and ``at_least`` bound the ratio or the value itself."""

    name: str
    measure: str
    what: str
    unit: str
    of: Of = Of.RATIO
    at_least: float | None = None
    at_most: float | None = None
    on: str = ""
    """The one database that it can be measured on; empty for any."""

    def met(self, value: float, ratio: float | None) -> bool:
        """Return whether figures keep the budget."""
        bounded = value if self.of is Of.VALUE else ratio
        if bounded is None:
            return False
        return not (
            (self.at_least is not None and bounded < self.at_least)
            or (self.at_most is not None and bounded > self.at_most)
        )

    @property
    def words(self) -> str:
        """The budget for people; empty where nothing is bounded."""
        if self.at_least is None and self.at_most is None:
            return ""
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{bound} {self.of.value or self.unit}"


BUDGETS: Mapping[str, Budget] = {
    budget.name: budget
    for budget in (
        Budget(
            "memory",
            "growth",
            "server memory for each idle agent, from 1,000 to 5,000 of them",
            "KB",
            at_most=1.25,
        ),
        Budget("heartbeats", "heartbeats", "heartbeats for a CPU second of the server", "1/s", at_least=0.6),
        Budget(
            "connects",
            "growth",
            "connects for a CPU second of the server, TLS, admission and session commit included",
            "1/s",
            at_least=0.5,
        ),
        Budget(
            "tasks",
            "tasks",
            "durable tasks for a CPU second of the server, created by a call each, delivered, result "
            "committed and acknowledged; yardstick: echo round trips",
            "1/s",
            at_least=0.15,
        ),
        Budget(
            "tasks-batch",
            "tasks",
            "the same with tasks created for all agents by one call",
            "1/s",
            at_least=0.15,
        ),
        Budget(
            "dispatch-p50",
            "fleet",
            "from a task's create_time to the agent's receipt, median; yardstick: an echo round trip",
            "ms",
            Of.VALUE,
            at_most=10,
        ),
        Budget(
            "dispatch-p99",
            "fleet",
            "the same, 99th percentile",
            "ms",
            Of.VALUE,
            at_most=50,
        ),
        Budget(
            "scale-memory",
            "fleet",
            "server memory for each agent of the largest fleet; yardstick: of 1,000 agents",
            "KB",
            at_most=1.2,
        ),
        Budget(
            "scale-cpu",
            "fleet",
            "CPU for each agent and second of the largest fleet; yardstick: of 1,000 agents",
            "us",
            at_most=1.2,
        ),
        Budget(
            "return-99",
            "restart",
            "from the moment at which a killed server listens again until 99% of 2,000 agents are back",
            "s",
            at_most=1.5,
        ),
        Budget("return-100", "restart", "the same, until all are back", "s", at_most=1.5),
        Budget(
            "replay-rate",
            "replay",
            "points of telemetry a second, of 50 agents that replay 100,000 together",
            "1/s",
            Of.VALUE,
            at_least=5_000,
        ),
        Budget(
            "replay-beats",
            "replay",
            "acknowledgement of 1,000 other agents' heartbeats during it, 99th percentile; yardstick: before",
            "ms",
            at_most=3,
        ),
        Budget(
            "telemetry",
            "telemetry",
            "points stored through streams, 100 a batch and deduplicated, for a CPU second of the server and "
            "its database; yardstick: a bare COPY of the same rows, its client and database counted",
            "1/s",
            at_least=0.4,
            on="postgresql",
        ),
        Budget(
            "statement",
            "statement",
            "CPU of a small read; yardstick: the same through plain aiosqlite",
            "us",
            on="sqlite",
        ),
    )
}
"""What is measured, by name: every budget that one process on SQLite can have, and one figure without."""


@dataclass(frozen=True, slots=True)
class Window:
    """What yardstick and product gave side by side; None for a yardstick that there is not."""

    yardstick: float | None
    value: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the output. ``ratio_range`` is the least and the greatest of the windows' ratios."""

    name: str
    unit: str
    yardstick: float | None
    value: float
    ratio: float | None
    budget: str
    met: bool | None
    windows: int
    ratio_range: tuple[float, float] | None = None
    quick: bool = False
    note: str = ""
    durability: str = ""
    profile: str = ""
    what: str = field(default="")

    def json(self) -> dict[str, Any]:
        """Return it JSON-ready, without what is empty, except for the fields that every line has."""
        always = {"name", "yardstick", "value", "ratio", "budget", "met"}
        items = asdict(self).items()
        return {key: value for key, value in items if key in always or value not in ("", False, None)}


def line(
    budget: Budget, windows: Sequence[Window], *, quick: bool = False, note: str = "", void: bool = False
) -> Line:
    """Return the line of a budget: medians of the windows, and the median of their ratios.

    A quick run is too small to claim anything: its ``met`` is None. ``void`` figures, taken under
    less load than the budget is for, keep no budget. Raises ``ValueError`` without windows.
    """
    if not windows:
        raise ValueError(f"{budget.name}: no window was measured")
    value = median(window.value for window in windows)
    sides = [window.yardstick for window in windows if window.yardstick]
    ratios = [window.value / window.yardstick for window in windows if window.yardstick]
    ratio = median(ratios) if ratios else None
    claim = None if quick or not budget.words else not void and budget.met(value, ratio)
    return Line(
        name=budget.name,
        unit=budget.unit,
        yardstick=significant(median(sides)) if sides else None,
        value=significant(value),
        ratio=None if ratio is None else round(ratio, 3),
        budget=budget.words,
        met=claim,
        windows=len(windows),
        ratio_range=(round(min(ratios), 3), round(max(ratios), 3)) if len(ratios) > 1 else None,
        quick=quick,
        note=note,
        what=budget.what,
    )


def significant(value: float, digits: int = 4) -> float:
    """Return ``value`` with so many significant digits: more would claim what no run can repeat."""
    return float(f"{value:.{digits}g}")


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the ``percent``-th percentile, interpolated. Raises ``ValueError`` for fewer than two values."""
    if len(values) < 2:
        raise ValueError("a percentile needs two values at least")
    return quantiles(values, n=100, method="inclusive")[percent - 1]
