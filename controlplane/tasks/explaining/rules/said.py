"""The shape of an explanation, and how times and texts stand in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum


class Code(IntEnum):
    """The contract's ``ExplanationCode``, with its numbers."""

    AGENT_OFFLINE = 1
    AGENT_STALE = 2
    AGENT_ONLINE = 3
    AGENT_NEVER_CONNECTED = 4
    AGENT_DELETED = 5
    KIND_NOT_TAKEN = 6
    RETRY_WAITS = 7
    NOT_BEFORE = 8
    BEHIND_OTHERS = 9
    AGENT_BUSY = 10
    NEXT_IN_QUEUE = 11
    LAST_ATTEMPT = 12
    HANDED_OUT = 13
    SENT_NOT_JOURNALED = 14
    LEASE_HELD = 15
    JOURNALED = 16
    PROGRESS = 17
    CANCEL_REQUESTED = 18
    DECIDED_BY_RESULT = 19
    DECIDED_BY_SERVER = 20
    ATTEMPTS_USED_UP = 21
    EFFECT_UNKNOWN = 22
    OVERDUE = 23
    LAST_SEEN = 24
    SESSION = 25
    OPEN_WORK = 26
    NO_OPEN_WORK = 27
    SUSPECTED_CLONE = 28
    CERTIFICATE = 29
    CLOCK_OFFSET = 30
    JOURNAL = 31
    WAITS_FOR_WINDOW = 32
    WINDOW_OPEN = 33
    WINDOW_CLOSED = 34
    SKIPS_OFFLINE = 35
    LATER_OF_KEY = 36
    REPLAYED = 37
    SENT_ON_RETURN = 40
    SENT_SOON = 41
    EXPIRES = 42
    LEASE_LAPSES = 43
    RUN_DEADLINE = 44
    RESULT_DECIDES = 45
    CANCELLED = 46
    FINAL = 47
    BECOMES_STALE = 48
    BECOMES_OFFLINE = 49
    BECOMES_ONLINE = 50
    QUEUE_EXPIRES = 51
    CERTIFICATE_ENDS = 52
    NEXT_WINDOW = 53
    SKIPPED = 54
    SUPERSEDED = 55


@dataclass(frozen=True, slots=True)
class Sentence:
    """One reason."""

    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class NextStep:
    """Something that will happen, at ``latest`` in microseconds where that is known."""

    code: Code
    text: str
    latest: int | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """What an administrator can do; ``command`` is empty where it is nothing that ``fleetwright`` does."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why something is as it is since an instant, and what happens next; the most important first."""

    since: int
    because: tuple[Sentence, ...]
    next_steps: tuple[NextStep, ...]
    remedies: tuple[Remedy, ...]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def at(time: int, now: int) -> str:
    """Return an instant in UTC, to the second, with its distance: ``2026-11-23 15:00:03Z (2 min ago)``."""
    instant = f"{_EPOCH + timedelta(microseconds=time):%Y-%m-%d %H:%M:%SZ}"
    away = length(abs(time - now))
    return f"{instant} (in {away})" if time > now else f"{instant} ({away} ago)"


def length(micros: int) -> str:
    """Return a duration as people say it, in at most two units: ``42 s``, ``3 min 10 s``, ``4 d 3 h``."""
    left = micros // 1_000_000
    parts = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append((size, f"{count} {unit}"))
    # The second unit only next to the first: "1 d 3 s" says no more than "1 d".
    shown = [text for size, text in parts[:2] if size * 60 >= parts[0][0]]
    return " ".join(shown) or "0 s"


def clause(text: str) -> str:
    """Return a text as the end of a sentence: with a colon before and without a full stop at its end."""
    stripped = text.strip().rstrip(".")
    return f": {stripped}" if stripped else ""


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its noun: ``1 task``, ``1,200 tasks``."""
    return f"{number:,} {one if number == 1 else many}"
