"""What is said of a task in several of its states."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.tasks.explaining.rules.facts import AttemptFacts, TaskFacts
from controlplane.tasks.explaining.rules.said import Code, NextStep, Remedy, Sentence, at, clause


def last_attempt(attempt: AttemptFacts, state_reason: str, now: int) -> Sentence:
    """Return how an attempt ended; ``state_reason`` is the server's where no result came."""
    when = "" if attempt.end_time is None else f" at {at(attempt.end_time, now)}"
    if attempt.outcome:
        ended = f"reported {attempt.outcome}{when}{clause(attempt.reason)}"
    elif attempt.state == "LAPSED":
        ended = f"was never taken, and its lease ended{when}{clause(state_reason)}"
    else:
        ended = f"was given up without a result{when}{clause(state_reason)}"
    return Sentence(Code.LAST_ATTEMPT, f"Attempt {attempt.number} {ended}.")


def expiry(task: TaskFacts, now: int) -> NextStep:
    """Return what becomes of a task that is not begun in time."""
    state, code = ("CANCELLED", Code.CANCELLED) if task.cancel_requested else ("EXPIRED", Code.EXPIRES)
    if task.expire_time <= now:
        return NextStep(code, f"The next sweep, within seconds, ends it as {state}.", now)
    text = f"Unless it is begun by {at(task.expire_time, now)}, it ends as {state}."
    return NextStep(code, text, task.expire_time)


def cancellation(task: TaskFacts, now: int, more: str = "") -> Iterator[Sentence]:
    """Yield that its cancellation was asked for, if it was; ``more`` ends the sentence."""
    if not task.cancel_requested:
        return
    when = "" if task.cancel_time is None else f" at {at(task.cancel_time, now)}"
    text = f"Its cancellation was asked for{when}{clause(task.cancel_detail)}{more}."
    yield Sentence(Code.CANCEL_REQUESTED, text)


def later_of_key(task: TaskFacts) -> Iterator[Sentence]:
    """Yield that a later task of its key exists, where that came while this one was open."""
    if task.superseded:
        yield Sentence(
            Code.LATER_OF_KEY,
            f"A later task of its key, {task.supersede_key}, was created, so it is begun no further time.",
        )


def cancel_it(task: TaskFacts, text: str) -> Remedy:
    """Return the command that cancels a task."""
    return Remedy(text, f"fleetwright tasks cancel tasks/{task.task_id}")


def ask_agent(task: TaskFacts) -> Remedy:
    """Return the command that explains a task's agent."""
    return Remedy("See why the agent is as it is", f"fleetwright explain agent {task.agent_id}")
