"""How large a batch of telemetry may be after the server has refused one for good. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

REFUSED_FOR_GOOD = frozenset({"VALIDATION_FAILED", "LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"})
"""Names of failures after which the same batch would be refused again, always."""
_POINT = re.compile(r"^batch\.points\[(\d+)\]")


def named_points(fields: Iterable[str], first_sequence: int, count: int) -> Sequence[int]:
    """Return the numbers of the points that a refusal of ``count`` points from ``first_sequence`` names."""
    matches = (_POINT.match(one) for one in fields)
    places = {int(match[1]) for match in matches if match is not None}
    return [first_sequence + place for place in sorted(places) if place < count]


class BatchSize:
    """Halves after each refusal, down to the one point that it is for; doubles after what was taken."""

    def __init__(self) -> None:
        self._limit: int | None = None
        self.alone = False
        """Whether one batch at a time is under way: a refusal then says which one it is meant for."""

    def within(self, most: int) -> int:
        """Return how many points the next batch may have, where the server takes ``most``."""
        return most if self._limit is None else min(most, self._limit)

    def refused(self, count: int) -> bool:
        """Note that a batch of ``count`` was refused; True where it cannot be smaller."""
        self._limit = max(1, count // 2)
        return count <= 1

    def taken(self, count: int) -> None:
        """Note that a batch of ``count`` was acknowledged."""
        self.alone = False
        if self._limit is not None:
            self._limit = self._limit * 2 if self._limit < _NO_LIMIT else None


_NO_LIMIT = 1 << 16
"""Beyond any batch: the limit is forgotten."""
