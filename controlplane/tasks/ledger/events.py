"""What the ledger keeps of a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypedDict

MAX_DETAIL = 200
"""Characters of an event's detail; the contract's limit."""


class DeliveryEvent(IntEnum):
    """The contract's ``DeliveryEventType``, with its numbers."""

    CREATED = 1
    LEASED = 2
    SENT = 3
    JOURNALED = 4
    RESULT_RECEIVED = 5
    COMMITTED = 6
    ACKNOWLEDGED = 7
    DUPLICATE_SUPPRESSED = 8
    CANCEL_REQUESTED = 9
    LAPSED = 10
    ABANDONED = 11
    RETRIED = 12
    EXPIRED = 13
    SKIPPED = 14
    SUPERSEDED = 15
    ENDED = 16
    REPLAYED = 17
    OBSERVATIONS_LOST = 18


OBSERVATIONS = frozenset(
    {
        DeliveryEvent.SENT,
        DeliveryEvent.RESULT_RECEIVED,
        DeliveryEvent.ACKNOWLEDGED,
        DeliveryEvent.DUPLICATE_SUPPRESSED,
        DeliveryEvent.OBSERVATIONS_LOST,
    }
)
"""Events that a process notes and writes a moment later; all others are part of a change's transaction."""


class EventRow(TypedDict):
    """One event as it is inserted; ``time`` is microseconds since the Unix epoch, by the server's clock."""

    task_id: str
    attempt_id: str | None
    agent_id: str
    event: int
    time: int
    session_epoch: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event as it is read. ``event`` is a number that a newer program may have written."""

    event_id: int
    task_id: str
    attempt_id: str | None
    agent_id: str
    event: int
    time: int
    session_epoch: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which events are asked for; empty and None do not restrict. ``start`` is inclusive, ``end`` is not."""

    task_id: str = ""
    agent_id: str = ""
    start: int | None = None
    end: int | None = None


def event_row(
    event: DeliveryEvent,
    task_id: str,
    attempt_id: str | None,
    agent_id: str,
    time: int,
    session_epoch: int | None = None,
    detail: str = "",
) -> EventRow:
    """Return an event that any database takes: of agents' texts in ``detail``, as much as it may have."""
    return {
        "task_id": task_id,
        "attempt_id": attempt_id,
        "agent_id": agent_id,
        "event": int(event),
        "time": time,
        "session_epoch": session_epoch,
        "detail": bounded(detail) if detail else "",
    }


def bounded(detail: str) -> str:
    """Return a detail without what PostgreSQL refuses, and at most ``MAX_DETAIL`` characters of it."""
    clean = detail.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return clean if len(clean) <= MAX_DETAIL else f"{clean[: MAX_DETAIL - 1]}…"
