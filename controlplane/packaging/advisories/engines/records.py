"""Shapes of asking another engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.packaging.advisories.records import Affected, Standing


class Question(NamedTuple):
    """A version of a package, and the advisories that it is held against."""

    ecosystem: str
    """With the release that the advisories are of ("AlmaLinux:8")."""
    name: str
    """Normalised, as advisories have it."""
    version: str


class EngineError(Exception):
    """An engine gave no answer that can be believed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What an engine is to judge: one snapshot of the store."""

    in_force: Sequence[Standing]
    known: Mapping[Question, Sequence[tuple[str, Sequence[Affected]]]]
    """By question: ids of the records about the package, with their blocks for it; none without any."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine said, by question and advisory. What it said nothing of, it has not judged."""

    engine: str
    version: str
    """With the digest of its program."""
    in_force: Sequence[Standing]
    """The imports that it was asked about."""
    said: Mapping[Question, Mapping[str, bool]] = field(default_factory=dict)
    asked: int = 0
    """Advisories, each counted for each version, that it could have judged."""

    @property
    def judged(self) -> int:
        """How many of those it did judge."""
        return sum(map(len, self.said.values()))

    def of(self, question: Question, advisory: str) -> bool | None:
        """Return whether a version is affected, None where the engine did not judge that."""
        return self.said.get(question, {}).get(advisory)
