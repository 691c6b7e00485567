"""What decides about a batch of points.

The points of a journal are numbered from 1 upwards by 1. Invariants:

* The last committed number never goes back, and grows by exactly the points stored and
  the numbers declared lost before them.
* No number is stored twice, and none is passed over unless the agent declared it lost.
* A session stores nothing once a newer one of its agent is there: each journal's numbers are cut into
  one stretch for each session that stored any, in the order of their epochs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

REMEMBERED = 4_096
"""Sets of attributes whose text is kept; of the largest, 2.5 KB each."""

MAX_SEQUENCE = 2**63 - 1
"""The largest number that both databases keep; a point a microsecond gets there in 292,000 years."""


class SequenceGap(ValueError):
    """A batch leaves out numbers without declaring them lost; ``expected`` is the next one wanted."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"the next number is {expected}")
        self.expected = expected


class SequenceTooLarge(ValueError):
    """A batch has numbers above ``MAX_SEQUENCE``."""


Stretches = tuple[tuple[int, int], ...]
"""The sessions that stored points of a journal, by rising epochs, each with where it stood before."""

MAX_STRETCHES = 8
"""How many of them are remembered: more than one only matters where copies of an agent take turns."""


def stretched(stretches: Stretches, epoch: int, last_sequence: int) -> Stretches:
    """Return the stretches after the session of ``epoch`` stored behind ``last_sequence``."""
    if stretches and stretches[-1][0] >= epoch:
        return stretches
    return (*stretches, (epoch, last_sequence))[-MAX_STRETCHES:]


def stored_until(stretches: Stretches, epoch: int, last_sequence: int) -> int | None:
    """Return where a journal stood when the session of ``epoch`` could store no more; None if not known.

    ``last_sequence`` is where it stands now.
    """
    later = [before for newer, before in stretches if newer > epoch]
    if not later:
        return last_sequence
    if len(later) == MAX_STRETCHES:
        # What was there before the first of them may be forgotten.
        return None
    return later[0]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a batch goes: its first ``duplicates`` points are known, the rest is stored.

    ``lost`` are the numbers that are given up with it.
    """

    duplicates: int
    lost: int
    last_sequence: int


def place(last_sequence: int, first_sequence: int, dropped: int, points: int) -> Placement:
    """Return where a batch goes in a journal that is committed up to ``last_sequence``.

    ``dropped`` numbers directly before ``first_sequence`` are declared lost; those of them
    that are committed already are not. Raises ``SequenceGap`` and ``SequenceTooLarge``.
    """
    expected = last_sequence + 1
    if first_sequence - dropped > expected:
        raise SequenceGap(expected)
    end = first_sequence + points - 1
    if end > MAX_SEQUENCE:
        raise SequenceTooLarge(f"the last number of the batch is {end}, above {MAX_SEQUENCE}")
    return Placement(
        duplicates=min(points, max(0, expected - first_sequence)),
        lost=max(0, first_sequence - expected),
        last_sequence=max(last_sequence, end),
    )


# Made once: json.dumps makes one for each call that asks for anything unusual, at more than the text costs.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode_attributes(attributes: Mapping[str, str]) -> str:
    """Return attributes as JSON, the same text for the same attributes in any order."""
    if not attributes:
        return "{}"
    # By its own iterator: that of ``items`` is Python's for a map of a message, and three times as slow.
    return _encoded(tuple(sorted([(name, attributes[name]) for name in attributes])))


@lru_cache(REMEMBERED)
def _encoded(attributes: tuple[tuple[str, str], ...]) -> str:
    # A fleet says the same of point after point.
    return _ENCODER.encode(dict(attributes))


def decode_attributes(text: str) -> dict[str, str]:
    """Return what ``encode_attributes`` encoded."""
    return {} if text == "{}" else dict(json.loads(text))
