"""Processes as the machine shows them: what is below a server, what is stopped, and what outlived it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_GONE = frozenset("ZX")
_STATE, _PARENT, _STARTED = 0, 1, 19
"""Fields of /proc/PID/stat behind the name (proc(5): 3, 4 and 22)."""
_JOB_DEPTH = 3
"""Below a server stands the guard of a job, below that its keeper, below that the job itself."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A process; ``started`` tells it from a later one with the same id."""

    pid: int
    started: str


@dataclass
class Machine:
    """Which processes there are, by one look."""

    states: dict[int, str] = field(default_factory=dict)
    started: dict[int, str] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def look(cls) -> Machine:
        """Read the table of processes."""
        found = cls()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # It ended meanwhile.
                found._take(int(stat.parent.name), stat.read_text(errors="replace"))
        return found

    def _take(self, pid: int, text: str) -> None:
        # The name stands in brackets, and may have any character.
        fields = text.rpartition(")")[2].split()
        self.states[pid], self.started[pid] = fields[_STATE], fields[_STARTED]
        self.children[int(fields[_PARENT])].append(pid)

    def below(self, pid: int) -> dict[int, int]:
        """Return the processes below one, each with how far."""
        found: dict[int, int] = {}
        edge, depth = [pid], 0
        while edge := [child for one in edge for child in self.children.get(one, ()) if child not in found]:
            depth += 1
            found |= dict.fromkeys(edge, depth)
        return found

    def jobs(self, pid: int) -> list[Seen]:
        """Return the isolated jobs of a server that live."""
        below = self.below(pid)
        return [
            Seen(one, self.started[one])
            for one, depth in below.items()
            if depth >= _JOB_DEPTH and self.states[one] not in _GONE
        ]

    def lives(self, one: Seen) -> bool:
        """Whether a process that was seen is still there."""
        return self.started.get(one.pid) == one.started and self.states[one.pid] not in _GONE

    def stopped(self, pid: int) -> bool:
        """Whether a process is stopped, as by SIGSTOP."""
        return self.states.get(pid) == "T"


class Watch:
    """Notes every process that was ever below some servers."""

    def __init__(self) -> None:
        self.servers: set[int] = set()
        self._seen: set[Seen] = set()

    def look(self) -> Machine:
        """Look once more; returns what there is."""
        machine = Machine.look()
        for server in tuple(self.servers):
            self._seen.update(Seen(pid, machine.started[pid]) for pid in machine.below(server))
        return machine

    def left(self, folder: Path) -> list[int]:
        """Return who is left of what was seen, or works in ``folder``, beside the servers themselves."""
        machine = self.look()
        seen = {one.pid for one in tuple(self._seen) if machine.lives(one)}
        return sorted((seen | set(_working_in(folder, machine.states))) - self.servers)


def _working_in(folder: Path, pids: Iterable[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/cwd").startswith(f"{folder}/"):
                found.append(pid)
    return found
