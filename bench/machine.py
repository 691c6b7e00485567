"""What a process of this machine has used, and what this machine is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version

import psutil


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads, in seconds, to the nanosecond.

    Reads the process's own clock (clock_getcpuclockid(3)); /proc counts in steps of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, directly or not."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def wait_until_ended(pids: Iterable[int]) -> None:
    """Wait until these processes have let go of all that they had, whoever is to ask for their status."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            # The first thread of one that was killed is gone before the others, which hold its sockets.
            while process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1:
                time.sleep(0.005)


def cpu_of_family(pid: int) -> float:
    """Return the CPU time of a process and all that it has started, in seconds; those that have ended too.

    A database ends the process of each connection that is closed: without it the sum would go back.
    """
    used = cpu_seconds(pid) + _of_ended(pid)
    for one in family(pid)[1:]:
        # One that has ended between the two looks is in its parent's sum at the next.
        with suppress(OSError, psutil.NoSuchProcess):
            used += cpu_seconds(one) + _of_ended(one)
    return used


def _of_ended(pid: int) -> float:
    """Return the CPU time of the children whose status a process has asked for, in steps of 10 ms."""
    times = psutil.Process(pid).cpu_times()
    return float(times.children_user + times.children_system)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def describe() -> dict[str, str | int | float]:
    """Return what the figures of a run depend on; ``load_before`` is the load average when this is called."""
    return {
        "load_before": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "uvloop": version("uvloop"),
        "system": f"{platform.system()} {platform.machine()}",
    }
