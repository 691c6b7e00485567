"""What follows from a Tasks stream that the server ended over what it was told. Pure.

The end of a stream names no attempt, and what was sent just before it may have
been read or not. So after a refusal results go one by one, each with its output
and nothing else beside it, until the next one is answered: a refusal then says
which one it is meant for. Attempts that have failed so go last: they hold up nobody.

Invariants:

* A result is reduced (its detail and output left out) only after a refusal that met it alone.
* One that is refused in its reduced form too is given up: nothing that can be said of it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

_ALONE_BEFORE = {
    # A rule of the contract, or a limit: the same bytes are refused again, always.
    "VALIDATION_FAILED": 1,
    "LIMIT_EXCEEDED": 1,
    # gRPC's own, for a message over its size limit: no reason comes with it.
    "RESOURCE_EXHAUSTED": 1,
    # May say that output was missing, which sending it again from the start has mended.
    "PROTOCOL_VIOLATION": 2,
}
"""By the name of the failure: how often a result meets it alone before it is reduced."""
_ONE_BY_ONE = frozenset({*_ALONE_BEFORE, "INTERNAL"})
"""Failures after which results go one by one. INTERNAL may be one result's fault, and is never its end."""


class Remedy(Enum):
    """What to do with the result that a refusal was meant for."""

    NONE = "none"
    """Nothing: it is not known which it was, or it may go well the next time."""
    REDUCE = "reduce"
    """Send it without its detail."""
    GIVE_UP = "give up"
    """Forget it."""


class Refusals:
    """Remembers refusals of one agent, over its streams and sessions."""

    def __init__(self) -> None:
        self.one_by_one = False
        """Whether to send one result at a time, and no output of what still runs."""
        self._alone: dict[str, int] = {}
        self._reduced: set[str] = set()

    def order(self, attempt_ids: Iterable[str]) -> list[str]:
        """Return ``attempt_ids`` in their order, those last that were refused alone."""
        return sorted(attempt_ids, key=lambda attempt_id: self._alone.get(attempt_id, 0))

    def refused(self, name: str, under_way: Iterable[str]) -> tuple[str, Remedy]:
        """Note that a stream ended as ``name`` with the attempts ``under_way`` unanswered.

        Returns the attempt that it was meant for, or "", and what to do with its result.
        """
        if name not in _ONE_BY_ONE:
            return "", Remedy.NONE
        self.one_by_one = True
        suspects = list(under_way)
        if len(suspects) != 1:
            return "", Remedy.NONE
        [attempt_id] = suspects
        times = self._alone[attempt_id] = self._alone.get(attempt_id, 0) + 1
        if times < _ALONE_BEFORE.get(name, times + 1):
            return attempt_id, Remedy.NONE
        if attempt_id in self._reduced:
            return attempt_id, Remedy.GIVE_UP
        return attempt_id, Remedy.REDUCE

    def reduced(self, attempt_id: str) -> None:
        """Note that a reduced result took the place of an attempt's."""
        self._reduced.add(attempt_id)
        self._alone.pop(attempt_id, None)

    def answered(self, attempt_id: str, others: bool) -> None:
        """Note that a result was acknowledged, or forgotten; ``others`` says whether more wait."""
        self._alone.pop(attempt_id, None)
        self._reduced.discard(attempt_id)
        if not others:
            self.one_by_one = False
