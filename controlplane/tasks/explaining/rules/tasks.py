"""Why a task is in its state, and what happens to it next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from controlplane.tasks.explaining.rules import ended, held, queued
from controlplane.tasks.explaining.rules.facts import TaskFacts
from controlplane.tasks.explaining.rules.said import Explanation, NextStep, Remedy, Sentence

_Parts = tuple[
    Callable[[TaskFacts, int], Iterator[Sentence]],
    Callable[[TaskFacts, int], Iterator[NextStep]],
    Callable[[TaskFacts, int], Iterator[Remedy]],
]
_BY_STATE: Mapping[str, _Parts] = {
    "QUEUED": (queued.because, queued.next_steps, queued.remedies),
    "LEASED": (held.leased_because, held.leased_next, held.leased_remedies),
    "RUNNING": (held.running_because, held.running_next, held.running_remedies),
}
"""How a state is explained; every other one is final."""
_FINAL: _Parts = (ended.because, ended.next_steps, ended.remedies)


def explain_task(task: TaskFacts, now: int) -> Explanation:
    """Return why a task is as it is at the instant ``now``, in microseconds."""
    because, next_steps, remedies = _BY_STATE.get(task.state, _FINAL)
    return Explanation(
        task.state_time,
        tuple(because(task, now)),
        tuple(next_steps(task, now)),
        tuple(remedies(task, now)),
    )
