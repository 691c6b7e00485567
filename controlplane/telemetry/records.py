"""The room's own shapes of a point. Instants are microseconds since the Unix epoch, UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

Place = tuple[int, int]
"""(revision, point id) of a point: points are watched in this order."""


class PointRecord(NamedTuple):
    """One measured value, as the agent sent it.

    ``time`` is by the agent's clock, however far that is from ours. ``attributes`` are in
    the form that ``rules.encode_attributes`` gives. A tuple, since points come by the thousand.
    """

    metric: str
    time: int
    value: float
    attributes: str = "{}"


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point with its origin."""

    point_id: int
    agent_id: str
    point: PointRecord
    receive_time: int
    revision: int = 0

    @property
    def place(self) -> Place:
        """Where it stands in the order of commits."""
        return self.revision, self.point_id


@dataclass(frozen=True, slots=True)
class PointPage:
    """A page of points by time of measurement, oldest first."""

    points: Sequence[StoredPoint]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class PointsCommitted:
    """What a watch saw in one look, in the order of commits; empty in the first."""

    points: Sequence[StoredPoint]
    resume_token: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Up to which number a journal is committed; 0 for none.

    ``previous`` is the same for the moment when a session that was named could store no more;
    None where none was, or where that is forgotten.
    """

    last_sequence: int
    previous: int | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which points; empty and None restrict nothing. ``start`` is inclusive, ``end`` exclusive."""

    agent_id: str = ""
    metric: str = ""
    start: int | None = None
    end: int | None = None
