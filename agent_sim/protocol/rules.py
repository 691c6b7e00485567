"""The journal's decisions: which assignments are taken, and how an attempt moves.

Invariants:

* An attempt id is admitted at most once; the same one again is KNOWN and never
  run again.
* A second attempt of a task is not admitted while another one is unreported:
  the agent cannot know yet whether the first one's effect counts, so the server
  must hear of it first.
* An attempt moves ARRIVING, JOURNALED, RUNNING, FINISHED and never back; it may
  skip RUNNING (refused, or cancelled before it began).
* Only what is durable is listed: an ARRIVING attempt is not.
* The order of admission is kept.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass


class AttemptState(enum.Enum):
    """Where an attempt stands in the journal."""

    ARRIVING = "arriving"
    """Admitted, not durable yet."""
    JOURNALED = "journaled"
    """Durable, waiting to run."""
    RUNNING = "running"
    """Running, or interrupted by the end of the process."""
    FINISHED = "finished"
    """Ended; its result waits to be acknowledged."""


class Admission(enum.Enum):
    """What the rules say to an assignment."""

    NEW = "new"
    """Journal it, accept it, run it."""
    KNOWN = "known"
    """It is in the journal: accept it again, do not run it again."""
    TASK_BUSY = "task busy"
    """Another attempt of the same task is unreported: do not take it now."""
    FULL = "full"
    """The journal holds as many attempts as it may: do not take it now."""


_NEXT: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.ARRIVING: frozenset({AttemptState.JOURNALED}),
    AttemptState.JOURNALED: frozenset({AttemptState.RUNNING, AttemptState.FINISHED}),
    AttemptState.RUNNING: frozenset({AttemptState.FINISHED}),
    AttemptState.FINISHED: frozenset(),
}


@dataclass
class _Attempt:
    task: str
    state: AttemptState


class AttemptIndex:
    """Every attempt of a journal, without its contents."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._attempts: dict[str, _Attempt] = {}
        self._tasks: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    @property
    def has_room(self) -> bool:
        """Whether another attempt would be admitted."""
        return len(self._attempts) < self._capacity

    def admit(self, attempt_id: str, task: str) -> Admission:
        """Decide on an assignment; a NEW one is in the index afterwards, as ARRIVING."""
        if attempt_id in self._attempts:
            return Admission.KNOWN
        if task in self._tasks:
            return Admission.TASK_BUSY
        if not self.has_room:
            return Admission.FULL
        self._attempts[attempt_id] = _Attempt(task, AttemptState.ARRIVING)
        self._tasks[task] = attempt_id
        return Admission.NEW

    def restore(self, attempt_id: str, task: str, state: AttemptState) -> None:
        """Put an attempt back that a journal on disk holds."""
        self._attempts[attempt_id] = _Attempt(task, state)
        self._tasks[task] = attempt_id

    def move(self, attempt_id: str, state: AttemptState) -> None:
        """Move an attempt. Raises KeyError for an unknown one, ValueError for an illegal move."""
        attempt = self._attempts[attempt_id]
        if state not in _NEXT[attempt.state]:
            raise ValueError(f"attempt {attempt_id} cannot go from {attempt.state.value} to {state.value}")
        attempt.state = state

    def state(self, attempt_id: str) -> AttemptState | None:
        """Return an attempt's state, or None."""
        attempt = self._attempts.get(attempt_id)
        return attempt.state if attempt else None

    def remove(self, attempt_id: str) -> None:
        """Forget an attempt; unknown ones are no error."""
        attempt = self._attempts.pop(attempt_id, None)
        if attempt and self._tasks.get(attempt.task) == attempt_id:
            del self._tasks[attempt.task]

    def durable(self) -> Iterator[tuple[str, str, AttemptState]]:
        """Yield id, task and state of every attempt that is durable, oldest first."""
        for attempt_id, attempt in self._attempts.items():
            if attempt.state is not AttemptState.ARRIVING:
                yield attempt_id, attempt.task, attempt.state
