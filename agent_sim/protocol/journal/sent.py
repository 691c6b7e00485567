"""Which points of a journal may be stored already, as the server's answers tell. Pure.

Invariants:

* No point that may be stored gets another number, and none that is known not to be is forgotten.
* The number up to which points may be stored only goes back when the server stands beyond what the named
  session stored: then that session has a successor, and can store no more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SentPoints:
    """How far a journal was sent by this process, or, for ``up_to`` at first, by an earlier one."""

    up_to: int = 0
    """Points with a greater number are not stored."""
    epoch: int = 0
    """The greatest epoch of a session that began to send; 0 for none."""
    begun_at: int = 0
    """Where the server stood then; what is numbered up to there is forgotten or has another number."""

    def resume(self, epoch: int, last_sequence: int, previous: int | None) -> None:
        """Note that the session of ``epoch`` begins to send; see ``Journal.resume_points``."""
        if epoch < self.epoch:
            # The answer to a session that was handed over: of what the newer one sent it knows nothing.
            return
        if previous is not None and previous < last_sequence:
            self.up_to = max(self.begun_at, min(self.up_to, previous))
        self.epoch, self.begun_at = epoch, last_sequence

    def read(self, last_sequence: int) -> None:
        """Note that points up to a number were read to be sent."""
        self.up_to = max(self.up_to, last_sequence)

    def acknowledge(self, last_sequence: int) -> int:
        """Note where the server stands; returns by how much points above ``up_to`` move to be behind it."""
        shift = max(0, last_sequence - self.up_to)
        self.up_to += shift
        return shift
