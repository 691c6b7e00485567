"""What may become of a task. Pure: no I/O, and the clock is passed in.

Invariants, property-tested in ``tests/unit/tasks``:

* A task leaves a state only along ``TRANSITIONS``; final states are never left.
* An attempt is finished at most once: a second result changes nothing.
* A result of a known attempt is never lost. It decides the task while the task
  is open and has not gone on without the attempt; success decides even then.
  Otherwise it is kept beside the attempt.
* At most one attempt of an open task is leased or running, and none of a final one.
* Only an idempotent task is run again after an attempt whose effect is unknown.
* At most ``max_attempts`` attempts of a task fail, and none is begun because of an
  interruption once there were ``MAX_INTERRUPTIONS + max_attempts``.
* A queued task is never one that is to be cancelled or that a later one of its key has superseded.
* A task of which a later one of its key exists is begun no further time.

The numbers of the enumerations are those of the contract, so that both the
database and the wire hold the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, IntEnum

MAX_INTERRUPTIONS = 20
"""An idempotent task whose every run takes its agent down must not do so for ever."""

RUN_GRACE = timedelta(seconds=60)
"""How long beyond an attempt's run limit its result may take to arrive. The agent ends it at the limit."""

RETRY_BASE = timedelta(seconds=5)
RETRY_CAP = timedelta(minutes=10)


class TaskState(IntEnum):
    """Where a task stands; every state from SUCCEEDED on is final."""

    QUEUED = 1
    LEASED = 2
    RUNNING = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6
    EXPIRED = 7
    INTERRUPTED = 8
    SKIPPED = 9
    SUPERSEDED = 10
    DEAD = 11


FINAL = frozenset(state for state in TaskState if state >= TaskState.SUCCEEDED)
OPEN = tuple(state for state in TaskState if state not in FINAL)


class BatchState(IntEnum):
    """How far a batch is with making its tasks."""

    EXPANDING = 1
    EXPANDED = 2
    CANCELLED = 3


class OfflinePolicy(IntEnum):
    """What becomes of a task while its agent cannot take it."""

    QUEUE = 1
    SKIP = 2
    LATEST = 3
    WINDOW = 4


class AttemptState(IntEnum):
    """Where an attempt stands."""

    LEASED = 1
    RUNNING = 2
    FINISHED = 3
    LAPSED = 4
    ABANDONED = 5


UNREPORTED = (AttemptState.LEASED, AttemptState.RUNNING, AttemptState.LAPSED)
"""Attempts that their agent may have in its journal, and may have run: also one whose lease has lapsed."""


class Outcome(IntEnum):
    """How an attempt ended, as its agent saw it."""

    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3
    INTERRUPTED = 4
    REFUSED = 5
    TIMED_OUT = 6


class Event(Enum):
    """What happens to a task."""

    LEASE = "handed to the agent"
    ACCEPT = "journalled by the agent"
    LAPSE = "the lease ended before the agent journalled it"
    SUCCEED = "the agent reported success"
    FAIL = "the agent reported a failure that is not tried again"
    RETRY = "an attempt failed and may be tried again"
    REQUEUE = "an attempt of an idempotent task was interrupted: it is run again"
    EXHAUST = "the last of several attempts failed"
    INTERRUPT = "the agent ended while it ran, and it is not idempotent"
    CANCEL = "cancelled while nothing runs, or the agent confirmed"
    EXPIRE = "not begun in time"
    SKIP = "its agent is offline, and its policy is not to wait for it"
    SUPERSEDE = "a later task of its key exists, so it waits no more"


_RESULTS: Mapping[Event, TaskState] = {
    Event.SUCCEED: TaskState.SUCCEEDED,
    Event.FAIL: TaskState.FAILED,
    Event.RETRY: TaskState.QUEUED,
    Event.REQUEUE: TaskState.QUEUED,
    Event.EXHAUST: TaskState.DEAD,
    Event.INTERRUPT: TaskState.INTERRUPTED,
    Event.CANCEL: TaskState.CANCELLED,
    Event.SUPERSEDE: TaskState.SUPERSEDED,
}

TRANSITIONS: Mapping[TaskState, Mapping[Event, TaskState]] = {
    # A queued task may still get a result: that of an attempt whose lease lapsed
    # while the agent, cut off, had it in its journal.
    TaskState.QUEUED: {
        Event.LEASE: TaskState.LEASED,
        Event.ACCEPT: TaskState.RUNNING,
        Event.EXPIRE: TaskState.EXPIRED,
        Event.SKIP: TaskState.SKIPPED,
        **_RESULTS,
    },
    TaskState.LEASED: {
        Event.ACCEPT: TaskState.RUNNING,
        Event.LAPSE: TaskState.QUEUED,
        Event.EXPIRE: TaskState.EXPIRED,
        **_RESULTS,
    },
    TaskState.RUNNING: {**_RESULTS},
    **{state: {} for state in FINAL},
}


@dataclass(frozen=True, slots=True)
class TaskView:
    """What the rules need to know of a task."""

    state: TaskState
    cancel_requested: bool
    idempotent: bool
    max_attempts: int
    attempt_count: int
    failed_count: int
    superseded: bool = False


def transition(state: TaskState, event: Event) -> TaskState:
    """Return where ``event`` leads from ``state``; raises ``KeyError`` where the table has no such step."""
    return TRANSITIONS[state][event]


def is_final(state: TaskState) -> bool:
    """Return whether nothing can happen to a task any more."""
    return state in FINAL


def event_of_result(task: TaskView, attempt: AttemptState, outcome: Outcome) -> Event | None:
    """Return what a result does to a task; None where it is only kept beside the attempt.

    ``attempt`` is the state in which the result found it. An attempt that was given
    up has been counted already, and one whose task is in another attempt's hands
    must not take it away from there: of both, only success is news.
    ``task.failed_count`` counts the failures before this one.
    """
    if is_final(task.state):
        return None
    if outcome is Outcome.SUCCEEDED:
        return Event.SUCCEED
    if gone_on(task, attempt):
        return None
    if outcome is Outcome.REFUSED:
        return Event.FAIL
    if outcome is Outcome.CANCELLED and task.cancel_requested:
        return Event.CANCEL
    if outcome in (Outcome.CANCELLED, Outcome.INTERRUPTED):
        return event_of_interruption(task)
    return event_of_failure(task)


def gone_on(task: TaskView, attempt: AttemptState) -> bool:
    """Return whether a task went on without an attempt: another is live, or this one was counted."""
    taken = attempt is AttemptState.LAPSED and task.state is not TaskState.QUEUED
    return taken or attempt is AttemptState.ABANDONED


def state_when_unwanted(attempt: AttemptState) -> AttemptState:
    """Return how a live attempt ends whose task another attempt has decided."""
    return AttemptState.LAPSED if attempt is AttemptState.LEASED else AttemptState.ABANDONED


def event_of_failure(task: TaskView) -> Event:
    """Return what a failed attempt does to an open task."""
    if task.cancel_requested or task.max_attempts <= 1:
        return Event.FAIL
    return _again(task, Event.RETRY) if task.failed_count + 1 < task.max_attempts else Event.EXHAUST


def event_of_interruption(task: TaskView) -> Event:
    """Return what an attempt with an unknown effect does to an open task."""
    if not task.idempotent:
        return Event.INTERRUPT
    if task.cancel_requested:
        return Event.CANCEL
    goes_on = task.attempt_count < MAX_INTERRUPTIONS + task.max_attempts
    return _again(task, Event.REQUEUE) if goes_on else Event.EXHAUST


def _again(task: TaskView, event: Event) -> Event:
    return Event.SUPERSEDE if task.superseded else event


def event_of_overrun(task: TaskView) -> Event:
    """Return what it does to an open task that an attempt ran past its deadline without a result.

    The agent may still be at it, so only an idempotent task is tried again.
    """
    if task.cancel_requested:
        return Event.CANCEL
    return event_of_failure(task) if task.idempotent else Event.FAIL


def event_of_lapse(task: TaskView) -> Event:
    """Return what it does to a leased task that its agent is gone without having taken it."""
    return Event.CANCEL if task.cancel_requested else _again(task, Event.LAPSE)


def event_of_expiry(task: TaskView) -> Event:
    """Return what it does to a queued or leased task that its time to wait is over."""
    return Event.CANCEL if task.cancel_requested else Event.EXPIRE


def state_at_creation(policy: OfflinePolicy, *, online: bool) -> TaskState:
    """Return the state in which a task begins, for an agent that is ``online`` then or is not."""
    return TaskState.SKIPPED if policy is OfflinePolicy.SKIP and not online else TaskState.QUEUED


def may_send(window_end: int | None, now: int) -> bool:
    """Return whether a task may go to its agent now, as to its window; None: it has none."""
    return window_end is None or now < window_end


class Acceptance(Enum):
    """What to do with an attempt that an agent has in its journal."""

    RUN = "it runs: adopt it"
    KNOWN = "it was known to run, or its result is already here"
    STOP = "nobody wants it any more: ask the agent to stop"


def accept(task: TaskView, attempt: AttemptState) -> Acceptance:
    """Decide on an attempt that the agent says it has journalled."""
    if attempt is AttemptState.FINISHED:
        return Acceptance.KNOWN
    if is_final(task.state) or attempt is AttemptState.ABANDONED:
        return Acceptance.STOP
    if attempt is AttemptState.RUNNING:
        return Acceptance.KNOWN
    # Another attempt runs already; where none does, one whose lease had lapsed is taken back.
    return Acceptance.STOP if task.state is TaskState.RUNNING else Acceptance.RUN


def retry_delay(attempt_count: int) -> timedelta:
    """Return how long a task waits after its ``attempt_count``-th attempt: doubling, capped."""
    doublings = min(max(attempt_count - 1, 0), 16)
    return min(RETRY_BASE * (1 << doublings), RETRY_CAP)


class ChunkPlace(Enum):
    """Where a chunk of output belongs."""

    NEXT = "it continues the output"
    KNOWN = "it is here already"
    GAP = "something before it is missing"


def place_chunk(received: int, offset: int, length: int) -> ChunkPlace:
    """Decide on a chunk of ``length`` bytes at ``offset`` when ``received`` bytes are here."""
    if offset == received:
        return ChunkPlace.NEXT
    return ChunkPlace.KNOWN if offset + length <= received else ChunkPlace.GAP


DEFAULT_QUEUE_TIME = timedelta(days=7)
DEFAULT_RUN_LIMIT = timedelta(minutes=10)
DEFAULT_MAX_ATTEMPTS = 1


class Cancellation(Enum):
    """What a request to cancel does."""

    NOW = "nothing runs: it is cancelled"
    ASK = "the agent has it: it is asked to stop"
    REPEATED = "it was asked already, or is cancelled already"
    TOO_LATE = "it has ended in another way"


REPLAYABLE = FINAL - {TaskState.SUCCEEDED}
"""From which states a task may be replayed: what is open goes on by itself, and what is done is done."""


def cancel(task: TaskView) -> Cancellation:
    """Decide on a request to cancel."""
    if task.state is TaskState.CANCELLED:
        return Cancellation.REPEATED
    if is_final(task.state):
        return Cancellation.TOO_LATE
    if task.state is TaskState.QUEUED:
        return Cancellation.NOW
    return Cancellation.REPEATED if task.cancel_requested else Cancellation.ASK
