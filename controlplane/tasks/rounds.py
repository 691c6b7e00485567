"""Operations on attempts, laid into rounds in each of which a task comes up once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from controlplane.errors import NotFound
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.operations import Accept, AppendOutput, Finish, Progress
from controlplane.tasks.store import delivery as store
from controlplane.tasks.store.delivery import AttemptWithTask

OnAttempt = Accept | Progress | AppendOutput | Finish
ApplyRound = Callable[[UnitOfWork, Any], Awaitable[list[Any]]]
"""Applies (operation, attempt) pairs, at most one of each task; returns one outcome each."""


def unknown_attempt(attempt_id: str) -> NotFound:
    """Return the refusal of an attempt that is unknown or another agent's; both look alike outside."""
    return NotFound(
        "ATTEMPT_UNKNOWN",
        f"attempt_id: this agent has no attempt {attempt_id!r}; forget it",
        metadata={"attempt_id": attempt_id},
    )


async def on_attempts(work: UnitOfWork, operations: Sequence[OnAttempt], apply: ApplyRound) -> list[Any]:
    """Answer operations on attempts; ``apply`` gets those whose attempt is their agent's.

    It is called once, unless several are about one task: those take effect one
    after the other, each on what the one before it made of the task.
    """
    outcomes: list[Any] = [None] * len(operations)
    waiting = list(range(len(operations)))
    while waiting:
        known = await store.attempts(work.connection, {operations[at].attempt_id for at in waiting})
        this_round: dict[str, tuple[int, AttemptWithTask]] = {}
        later = []
        for at in waiting:
            attempt = known.get(operations[at].attempt_id)
            if attempt is None or attempt.agent_id != operations[at].agent_id:
                outcomes[at] = unknown_attempt(operations[at].attempt_id)
            elif attempt.task_id in this_round:
                later.append(at)
            else:
                this_round[attempt.task_id] = (at, attempt)
        chosen = list(this_round.values())
        answers = await apply(work, [(operations[at], attempt) for at, attempt in chosen])
        for (at, _), answer in zip(chosen, answers, strict=True):
            outcomes[at] = answer
        waiting = later
    return outcomes
