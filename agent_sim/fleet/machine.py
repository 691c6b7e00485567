"""What this process may use and has used of its machine."""

from __future__ import annotations

import resource
from dataclasses import dataclass

import psutil

_FILES_BESIDES = 256
"""Open files that are not agents' connections: libraries, logs, the interpreter."""


class TooFewFilesError(Exception):
    """The process may not open as many files as there are agents to connect."""


def allow_connections(agents: int) -> None:
    """Raise the soft limit of open files to the hard one. Raises TooFewFilesError."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < agents + _FILES_BESIDES:
        raise TooFewFilesError(
            f"--agents {agents}: this process may open {hard} files, which is enough for "
            f"{max(0, hard - _FILES_BESIDES)} agents; raise the limit (ulimit -Hn) or ask for fewer"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True)
class Usage:
    """What the process has used so far."""

    cpu_seconds: float
    rss_bytes: int


def usage() -> Usage:
    """Return what this process has used so far."""
    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        return Usage(times.user + times.system, process.memory_info().rss)
