"""Puts state events into the transaction of the change that they tell of, as rows of one statement.

Each function is called where the change is decided; the rows are inserted together just before the
commit, and go with the savepoint that they were noted in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks import rules
from controlplane.tasks.ledger.events import DeliveryEvent, EventRow, event_row
from controlplane.tasks.operations import Create
from controlplane.tasks.rules import AttemptState, Event, TaskState
from controlplane.tasks.store.delivery import AttemptWithTask
from controlplane.tasks.store.ledger import insert_events, insert_unattempted

_GIVEN_UP = {AttemptState.LAPSED: DeliveryEvent.LAPSED, AttemptState.ABANDONED: DeliveryEvent.ABANDONED}


def note(work: UnitOfWork, rows: Sequence[EventRow]) -> None:
    """Insert events with the commit of ``work``."""
    work.before_commit(insert_events, rows)


def created(work: UnitOfWork, made: Sequence[Create]) -> None:
    """Note tasks that calls created one by one; a batch's are written by ``store.ledger.insert_created``."""
    note(
        work,
        [event_row(DeliveryEvent.CREATED, one.task_id, None, one.agent_id, one.now) for one in made],
    )


def leased(work: UnitOfWork, attempts: Sequence[Mapping[str, Any]]) -> None:
    """Note attempts that begin; each is the row of ``task_attempts`` that is inserted."""
    note(
        work,
        [
            event_row(
                DeliveryEvent.LEASED,
                attempt["task_id"],
                attempt["attempt_id"],
                attempt["agent_id"],
                attempt["lease_time"],
                attempt["session_epoch"],
                f"attempt {attempt['number']}",
            )
            for attempt in attempts
        ],
    )


def journaled(work: UnitOfWork, accepted: Iterable[tuple[AttemptWithTask, int]]) -> None:
    """Note attempts that agents have in their journals, each with the time at which that was heard."""
    note(work, [_of(attempt, DeliveryEvent.JOURNALED, now) for attempt, now in accepted])


def settled(
    work: UnitOfWork,
    decided: Iterable[tuple[AttemptWithTask, Event | None, str, int]],
    ending: AttemptState,
) -> None:
    """Note how attempts ended, and what that made of their tasks; takes what ``Settling.settle`` takes."""
    note(work, [row for one in decided for row in _settled(*one, ending)])


def overtaken(work: UnitOfWork, others: Iterable[AttemptWithTask], times: Mapping[str, int]) -> None:
    """Note live attempts that ended because another one decided their task; ``times`` by task id."""
    note(
        work,
        [
            _of(
                other,
                _GIVEN_UP[rules.state_when_unwanted(other.attempt_state)],
                times[other.task_id],
                "another attempt decided the task",
            )
            for other in others
        ],
    )


def ended(work: UnitOfWork, state: TaskState, now: int) -> None:
    """Note tasks that this transaction has ended in a state, without an attempt, by statements over many."""
    work.before_commit(insert_unattempted, [(state, now)])


def cancel_requested(work: UnitOfWork, task_id: str, agent_id: str, reason: str, now: int) -> None:
    """Note that a task which its agent has is to be stopped."""
    note(work, [event_row(DeliveryEvent.CANCEL_REQUESTED, task_id, None, agent_id, now, None, reason)])


def _settled(
    attempt: AttemptWithTask, event: Event | None, reason: str, now: int, ending: AttemptState
) -> Iterable[EventRow]:
    reported = ending is AttemptState.FINISHED
    open_task = not rules.is_final(attempt.task.state)
    after = rules.transition(attempt.task.state, event) if event is not None and open_task else None
    if reported:
        yield _of(attempt, DeliveryEvent.COMMITTED, now, _made_of_task(after, reason))
    else:
        yield _of(attempt, _GIVEN_UP[ending], now, reason)
    if event is None or after is None:
        return
    if rules.is_final(after):
        if not reported:
            yield _of(attempt, DeliveryEvent.ENDED, now, f"{after.name}: {reason}")
    elif event is not Event.LAPSE:
        yield _of(attempt, DeliveryEvent.RETRIED, now, event.value)


def _made_of_task(after: TaskState | None, reason: str) -> str:
    if after is None:
        return "kept beside the attempt: the task is final, or went on without it"
    words = after.name if rules.is_final(after) else "tried again"
    return f"{words}: {reason}" if reason else words


def _of(attempt: AttemptWithTask, event: DeliveryEvent, now: int, detail: str = "") -> EventRow:
    return event_row(event, attempt.task_id, attempt.attempt_id, attempt.agent_id, now, None, detail)
