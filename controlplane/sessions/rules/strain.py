"""What a process measures of itself, by which it sizes what it lets in. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_QUEUED = 5_000
"""Operations that wait for a commit above which a process is strained: several full commits' worth."""


@dataclass(frozen=True, slots=True)
class Strain:
    """How late the event loop runs what is due, how long the longest of the last group commits took, both
    in seconds, and how many operations wait for one.
    """

    loop_lag: float = 0.0
    commit: float = 0.0
    queued: int = 0

    def exceeds(self, seconds: float) -> bool:
        """Return whether lag or commit took longer than ``seconds``, or the queue is long."""
        return max(self.loop_lag, self.commit) > seconds or self.queued > MOST_QUEUED
