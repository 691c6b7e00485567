"""Ending all that a job started, as its guard: the processes below this one, however they were started."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PATIENCE = 10.0
"""Seconds for the kernel to end what was killed: one that waits for a device takes its time."""
_PAUSE = 0.002


def end_descendants() -> int:
    """Kill and reap every process below this one; returns how many could not be ended.

    This process must adopt orphans: a daemon that left its parents is then a child of it.
    """
    deadline = time.monotonic() + _PATIENCE
    while _reap():
        left = _below(os.getpid())
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return len(left)
        time.sleep(_PAUSE)
    return 0


def _reap() -> bool:
    """Collect what has ended; returns whether there are children left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _below(ancestor: int) -> list[int]:
    parents = _parents()
    found: list[int] = []
    edge = {ancestor}
    while edge := {pid for pid, parent in parents.items() if parent in edge}:
        found += edge
    return found


def _parents() -> dict[int, int]:
    """Return the parent of every process of the machine."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            # The name stands in brackets and may hold anything, brackets too.
            fields = stat.read_bytes().rpartition(b")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
    return parents
