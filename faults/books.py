"""The books outside the product: what agents were promised, and what their hosts really did."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that an agent met, at ``time`` seconds of the machine's monotonic clock."""

    time: float
    agent: str
    what: str
    """``connected``, or the reason of an end or of a failure."""


@dataclass(frozen=True, slots=True)
class Beat:
    """An answered beat: when its answer came, and how many seconds after the beat."""

    time: float
    agent: str
    latency: float


@dataclass
class Books:
    """What ``faults.hosts`` wrote down, read on from where the last look ended."""

    path: Path
    results: dict[str, str] = field(default_factory=dict)
    """Disposition of each attempt whose result the server acknowledged."""
    points: set[float] = field(default_factory=set)
    """Values of the points that it acknowledged."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Points that each agent has given up, as it counts them."""
    measured: Counter[str] = field(default_factory=Counter)
    """Points that each agent has measured."""
    full: set[str] = field(default_factory=set)
    """Agents whose journals have no room, as they know it."""
    connections: list[Happening] = field(default_factory=list)
    losses: list[Happening] = field(default_factory=list)
    failures: list[Happening] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    """Agents that gave up for good, with their reasons."""
    beats: list[Beat] = field(default_factory=list)
    _live: Counter[str] = field(default_factory=Counter)
    _read: int = 0

    def look(self) -> None:
        """Read what was written since the last look, up to the last whole line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new.rfind(b"\n") + 1
        self._read += whole
        for line in new[:whole].splitlines():
            self._take(json.loads(line))

    @property
    def live(self) -> set[str]:
        """Agents that hold a session, as they know it."""
        return {agent for agent, sessions in self._live.items() if sessions > 0}

    def back_after(self, since: float) -> list[float]:
        """Return how many seconds after ``since`` each agent first had a session again, in order."""
        first: dict[str, float] = {}
        for one in self.connections:
            if one.time >= since:
                first.setdefault(one.agent, one.time - since)
        return sorted(first.values())

    def missed_beats(self, agents: Sequence[str], gap: float, since: float, until: float) -> int:
        """Return how many times one of ``agents`` was without an answered beat for ``gap`` seconds.

        ``until`` is when the books were looked at last: who was answered once and never again has missed
        one too.
        """
        times: dict[str, list[float]] = {agent: [] for agent in agents}
        for beat in self.beats:
            if beat.agent in times and since <= beat.time <= until:
                times[beat.agent].append(beat.time)
        return sum(
            later - earlier > gap
            for one in times.values()
            for earlier, later in pairwise([since, *one, until])
        )

    def beat_p99(self, since: float, until: float) -> float:
        """Return the 99th percentile of the latencies between two times, in seconds; 0 of none."""
        found = sorted(beat.latency for beat in self.beats if since <= beat.time <= until)
        return found[min(len(found) - 1, int(len(found) * 0.99))] if found else 0.0

    def forget_sessions(self, agents: tuple[str, ...]) -> None:
        """Note that the process of these agents is gone, and their sessions with it."""
        self.look()
        for agent in agents:
            self._live[agent] = 0

    def _take(self, line: dict[str, Any]) -> None:
        event, agent, time = line["e"], line["a"], line["t"]
        if event == "connected":
            self._live[agent] += 1
            self.connections.append(Happening(time, agent, event))
        elif event == "disconnected":
            self._live[agent] -= 1
            self.losses.append(Happening(time, agent, line["reason"]))
        elif event == "failed":
            self.failures.append(Happening(time, agent, line["reason"]))
        elif event == "result":
            self.results[line["attempt"]] = line["disposition"]
        elif event == "points":
            self.points.update(line["values"])
        elif event in ("dropped", "measured"):
            counts = self.dropped if event == "dropped" else self.measured
            counts[agent] += line["count"]
        elif event in ("full", "room"):
            (self.full.add if event == "full" else self.full.discard)(agent)
        elif event == "beat":
            self.beats.append(Beat(time, agent, line["latency"]))
        else:
            self.stopped.append(f"{agent}: {line['error']}: {line['detail']}")


def effects_by_task(witness: Path) -> Counter[str]:
    """Return how often each task had its effect, from lines of ``task attempt agent``."""
    return Counter(task for task, _, _ in _effects(witness))


def effects_by_attempt(witness: Path) -> Counter[tuple[str, str]]:
    """Return how often each attempt had its effect, by attempt and agent."""
    return Counter((attempt, agent) for _, attempt, agent in _effects(witness))


def _effects(witness: Path) -> list[tuple[str, str, str]]:
    if not witness.exists():
        return []
    text = witness.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [(task, attempt, agent) for task, attempt, agent in (line.split(" ") for line in lines)]
