"""Resource limits of the process (setrlimit(2)): all below have them too, and nothing raises them."""

from __future__ import annotations

import math
import resource
from contextlib import suppress
from pathlib import Path

from controlplane.packaging.isolation.records import IsolationLimits


def tasks_of(uid: int) -> int:
    """Return how many processes and threads a user has: the kernel counts those, not the job's alone."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
            values = dict(line.split(":", 1) for line in lines if ":" in line)
            if int(values["Uid"].split()[0]) == uid:
                count += int(values["Threads"])
    return count


def wanted(limits: IsolationLimits, present_tasks: int) -> dict[int, int]:
    """Return the limits by resource; the keeper and the job itself are on top of ``limits.processes``."""
    return {
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_CPU: math.ceil(limits.cpu.total_seconds()),
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_NPROC: present_tasks + limits.processes + 1,
        resource.RLIMIT_CORE: 0,
    }


def apply(limits: dict[int, int]) -> None:
    """Set the limits. One that is lower already stays; who ignores SIGXCPU is killed a second later."""
    for number, value in limits.items():
        _, hard = resource.getrlimit(number)
        highest = value + 1 if number == resource.RLIMIT_CPU else value
        if hard != resource.RLIM_INFINITY:
            highest = min(highest, hard)
        resource.setrlimit(number, (min(value, highest), highest))
