"""The gate that new sessions pass, and the virtual queue behind it. Pure; clocks are passed in.

The gate is as wide as Hellos may be under way at once. It is sized by what the process measures of
itself: while Hellos are welcomed in time and the loop and the writer keep up, a gate that turned
someone away widens by a step; where they do not, it narrows by a factor (AIMD: R. Jain, "A
Quantitative Measure of Fairness", and TCP since 1988).

Who finds it shut is given a slot: an instant behind the last one that was given out, one step of the
measured rate further. Invariants:

* No instant is given out twice, and the slots of a storm lie evenly, as far apart as admissions were.
* Whoever comes back at its slot passes before any newcomer: newcomers leave half of the gate
  to them while one is due, and none of those ever waits for a place that a newcomer has.
* Whoever comes early, or twice, keeps the slot that it has; one that does not come loses it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from controlplane.sessions.rules.strain import Strain

LEAST_WIDTH = 16.0
MOST_WIDTH = 2_048.0
FIRST_WIDTH = 512.0
"""Hellos under way at once: at the least, at the most, and before anything was measured."""

_WIDER_BY = 32.0
_NARROWER_BY = 0.7
_SETTLES = 1.0  # seconds until a narrower gate shows in what is measured

LEAST_RATE = 100.0
FIRST_RATE = 200.0
"""Admissions a second that slots are spaced by: at the least, and before anything was measured."""

_RATED_EVERY = 0.5
_FALLS_BY = 0.25

LEAST_WAIT = 0.5
"""Seconds before the first slot: whoever is refused needs a moment to come back at all."""

_EARLY = 0.05
_LATE = 5.0
_LATE_SHARE = 0.25


class Verdict(Enum):
    """What the gate says of a Hello."""

    ADMITTED = "admitted"
    AT_SLOT = "at_slot"
    """It came back when it was told to."""
    REPLACES = "replaces"
    """It takes the place of its own live session."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, and for one that is refused the seconds until its slot."""

    verdict: Verdict
    wait: float = 0.0

    @property
    def admitted(self) -> bool:
        """Whether the Hello may go on; its end is then told to ``Gate.done``."""
        return self.verdict is not Verdict.REFUSED


@dataclass(frozen=True, slots=True)
class _Slot:
    due: float
    lapses: float


class Gate:
    """Decides which Hellos pass. ``target`` is how many seconds one should take at the most."""

    def __init__(self, target: float, now: float) -> None:
        self._target = target
        self._width = FIRST_WIDTH
        self._newcomers = 0
        self._others = 0
        self._turned_away = False
        self._slowest = 0.0
        self._narrowed = now - _SETTLES
        self._rate = FIRST_RATE
        self._done = 0
        self._busy_since: float | None = None
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._last_slot = now

    @property
    def width(self) -> float:
        """How many Hellos may be under way at once."""
        return self._width

    @property
    def rate(self) -> float:
        """How many admissions a second slots are spaced by."""
        return self._rate

    @property
    def backlog(self) -> int:
        """How many agents hold a slot that they have not used."""
        return len(self._slots)

    @property
    def under_way(self) -> int:
        """How many Hellos passed and are not done."""
        return self._newcomers + self._others

    def ask(self, agent_id: str, now: float, *, live: bool, jitter: float) -> Answer:
        """Decide about the Hello of an agent.

        ``live``: it has a session here, which the new one replaces; that is let in at any time.
        ``jitter`` is a random number from 0 up to 1: where within its step a slot lies.
        """
        self._forget(now)
        if live:
            self._slots.pop(agent_id, None)
            self._others += 1
            return Answer(Verdict.REPLACES)
        slot = self._slots.get(agent_id)
        if slot is not None and now >= slot.due - _EARLY:
            return self._returned(agent_id, now, jitter)
        if self.under_way < self._room_for_newcomers(now):
            self._slots.pop(agent_id, None)
            self._newcomers += 1
            return Answer(Verdict.ADMITTED)
        self._begin_to_rate(now)
        if slot is None:
            slot = self._give_slot(agent_id, now, jitter)
        return Answer(Verdict.REFUSED, slot.due - now)

    def done(self, answer: Answer, seconds: float, now: float) -> None:
        """Note that an admitted Hello was welcomed, or failed, ``seconds`` after it passed."""
        if answer.verdict is Verdict.ADMITTED:
            self._newcomers -= 1
        else:
            self._others -= 1
        if now - seconds >= self._narrowed:
            # One that passed a wider gate says nothing of this one.
            self._slowest = max(self._slowest, seconds)
        self._done += 1
        self._measure_rate(now)

    def size(self, strain: Strain, now: float) -> None:
        """Make the gate wider or narrower by what was measured since the last time, some times a second."""
        strained = now - self._narrowed >= _SETTLES and strain.exceeds(self._target / 2)
        if strained or self._slowest > self._target:
            self._width = max(LEAST_WIDTH, self._width * _NARROWER_BY)
            self._narrowed = now
        elif self._turned_away:
            self._width = min(MOST_WIDTH, self._width + _WIDER_BY)
        self._turned_away, self._slowest = False, 0.0

    def _returned(self, agent_id: str, now: float, jitter: float) -> Answer:
        """Let one in that is due. Where the gate has narrowed below those that are, it is the next one."""
        if self._others < self._width:
            del self._slots[agent_id]
            self._others += 1
            return Answer(Verdict.AT_SLOT)
        self._begin_to_rate(now)
        # As long as those take that are before it.
        wait = LEAST_WAIT + (self._others + jitter) / self._rate
        self._slots[agent_id] = _Slot(now + wait, now + wait + _lateness(wait))
        self._slots.move_to_end(agent_id, last=False)
        return Answer(Verdict.REFUSED, wait)

    def _room_for_newcomers(self, now: float) -> float:
        first = next(iter(self._slots.values()), None)
        return self._width / 2 if first is not None and first.due <= now else self._width

    def _give_slot(self, agent_id: str, now: float, jitter: float) -> _Slot:
        step = 1 / self._rate
        base = max(self._last_slot, now + LEAST_WAIT)
        self._last_slot = base + step
        due = base + step * jitter
        slot = self._slots[agent_id] = _Slot(due, due + _lateness(due - now))
        return slot

    def _begin_to_rate(self, now: float) -> None:
        """Count admissions from the first refusal on: only a gate that is full shows what it can do."""
        self._turned_away = True
        if self._busy_since is None:
            self._busy_since, self._done = now, 0

    def _measure_rate(self, now: float) -> None:
        if self._busy_since is None:
            return
        seconds = now - self._busy_since
        if seconds < _RATED_EVERY:
            return
        measured = self._done / seconds
        # Slots that lie too far apart leave the server idle; too dense, they cost a stream that is refused.
        weight = 1.0 if measured > self._rate else _FALLS_BY
        self._rate = max(LEAST_RATE, self._rate + weight * (measured - self._rate))
        self._busy_since, self._done = (now, 0) if self._turned_away else (None, 0)

    def _forget(self, now: float) -> None:
        """Take slots back from those that did not come."""
        while self._slots:
            agent_id, slot = next(iter(self._slots.items()))
            if slot.lapses > now:
                return
            del self._slots[agent_id]


def _lateness(wait: float) -> float:
    # Agents add up to a tenth to what they are told, and a busy client some seconds of its own.
    return max(_LATE, wait * _LATE_SHARE)
