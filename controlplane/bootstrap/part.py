"""What a process is told by the supervisor that started it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A process's place under its supervisor.

    ``name`` is the supervisor's id and the part's, "3f9c…/gateway-1": of two processes with the
    same name the former is gone. ``restarts`` is how often the part was started again.
    """

    name: str
    restarts: int = 0

    @property
    def short(self) -> str:
        """The part's own name, "gateway-1"."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Place:
    """How a process hangs on the supervisor that started it; ``lifeline`` is the number of an open file."""

    part: Part
    lifeline: int
