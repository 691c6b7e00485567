"""Why a task ended as it did, and what can be done about it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from controlplane.tasks.explaining.rules.facts import TaskFacts
from controlplane.tasks.explaining.rules.presence import presence_sentence
from controlplane.tasks.explaining.rules.said import Code, NextStep, Remedy, Sentence, at, clause, counted
from controlplane.tasks.explaining.rules.shared import ask_agent, cancellation, last_attempt, later_of_key
from controlplane.tasks.rules import REPLAYABLE

_REPLAYABLE = frozenset(state.name for state in REPLAYABLE)
_ADVICE = {
    "FAILED": "Mend the cause, then have it done anew",
    "DEAD": "Mend the cause, then have it done anew",
    "INTERRUPTED": "Look at the host, then have it done anew",
    "SKIPPED": "Have it done anew once the agent is ONLINE: it does not wait then either",
}
_ANEW = "Have it done anew"


def because(task: TaskFacts, now: int) -> Iterator[Sentence]:
    """Yield what decided."""
    decided = task.decided
    if decided is not None:
        when = task.state_time if decided.end_time is None else decided.end_time
        reported = decided.outcome or "a result"
        text = f"Attempt {decided.number} reported {reported} at {at(when, now)}{clause(decided.reason)}."
        yield Sentence(Code.DECIDED_BY_RESULT, text)
    else:
        reason = task.state_reason.strip().rstrip(".") or f"the server ended it as {task.state}"
        yield Sentence(Code.DECIDED_BY_SERVER, f"No result decided: {reason}.")
    if task.state == "DEAD":
        failed = counted(task.failed_count, "attempt", "attempts")
        yield Sentence(
            Code.ATTEMPTS_USED_UP,
            f"{failed} failed of at most {task.max_attempts}, after {task.attempt_count} begun.",
        )
    if task.state == "INTERRUPTED":
        yield Sentence(
            Code.EFFECT_UNKNOWN,
            "Whether it had an effect is not known, and it was not declared idempotent, so it was not run "
            "again.",
        )
    if task.state == "SUPERSEDED" and task.attempt_count:
        # The reason is that of the attempt, which alone would not have ended it so.
        yield from later_of_key(task)
    if task.cancel_requested and task.state != "CANCELLED":
        yield from cancellation(task, now, "; it ended in another way before")
    if task.state in {"EXPIRED", "SKIPPED"} and task.agent is not None and not task.agent.online:
        yield presence_sentence(task.agent, now)
    if task.state == "EXPIRED" and task.last is not None:
        yield last_attempt(task.last, "", now)
    if task.replayed_as:
        yield Sentence(Code.REPLAYED, f"It was done anew as tasks/{task.replayed_as}.")


def next_steps(task: TaskFacts, now: int) -> Iterator[NextStep]:
    """Yield that nothing happens any more."""
    del task, now
    yield NextStep(Code.FINAL, "Nothing: the state is final. The task is deleted once its retention is over.")


def remedies(task: TaskFacts, now: int) -> Iterator[Remedy]:
    """Yield what an administrator can do."""
    del now
    name = f"tasks/{task.task_id}"
    if task.attempt_count:
        yield Remedy("Read what it said", f"fleetwright tasks output {name}")
    if task.state == "SKIPPED" and task.agent is not None and not task.agent.online:
        yield ask_agent(task)
    yield from _anew(task, name)
    # What is done anew has the same options.
    if task.state == "INTERRUPTED":
        yield Remedy("Create others with --idempotent: they are run again by themselves")
    elif task.state == "EXPIRED":
        yield Remedy("Create it again, with a longer --queue-time where the agent is away for long")
    elif task.state in {"FAILED", "DEAD"}:
        yield Remedy("Create others with a higher --max-attempts: they may fail more often")
    yield Remedy("See what happened to it, one by one", f"fleetwright tasks events {name}")


def _anew(task: TaskFacts, name: str) -> Iterator[Remedy]:
    if task.replayed_as:
        yield Remedy("See what became of it anew", f"fleetwright explain task tasks/{task.replayed_as}")
    elif task.state not in _REPLAYABLE or task.agent is None:
        pass  # it is refused
    elif task.has_later:
        key = task.supersede_key.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
        chosen = shlex.quote(f'supersede_key = "{key}"')
        text = "See the later tasks of its key, which took its place"
        yield Remedy(text, f"fleetwright tasks list --agent {task.agent_id} --filter {chosen}")
    else:
        yield Remedy(_ADVICE.get(task.state, _ANEW), f"fleetwright tasks replay {name}")
