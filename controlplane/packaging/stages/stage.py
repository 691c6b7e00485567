"""What every stage takes and gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.packaging.rules import Decision, Stage
from controlplane.packaging.store.pipelines import Counts, PipelineRecord


class StageFailed(Exception):
    """A stage could not be done. ``code`` is a stable word; the text is for people, and has no secrets."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Job:
    """What a stage works on. ``folder`` is empty, its own, and gone afterwards.

    ``outcomes`` are those of the stages before it; ``say(level, text)`` writes a line of the log.
    """

    pipeline: PipelineRecord
    outcomes: Mapping[Stage, Mapping[str, Any]]
    folder: Path
    say: Callable[[str, str], None]


@dataclass(frozen=True)
class StageDone:
    """What a stage found. All of it is JSON.

    ``outcome`` is for later stages; ``tools`` (versions), ``inputs`` and ``outputs`` (digests) and
    ``isolation`` are evidence. ``facts`` are columns of the pipeline that are known from here on.
    """

    outcome: Mapping[str, Any]
    tools: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    isolation: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    counts: Counts | None = None
    decision: Decision = Decision.UNJUDGED

    def report(self) -> dict[str, Mapping[str, str]]:
        """Return the evidence of it."""
        return {
            "tools": self.tools,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "isolation": self.isolation,
        }


StageRun = Callable[[Job], Awaitable[StageDone]]
"""A stage."""
