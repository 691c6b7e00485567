"""Profiles: where a server's CPU time goes while a measure's load runs.

Two views of the same seconds. The kernel counts the CPU time of each thread, which is exact and
knows TLS, HTTP/2 and SQLite, but no functions. py-spy samples, from outside, which Python function
holds the interpreter's lock, of which one process has one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.children import Child

_FRAME = re.compile(r"(?P<function>.*) \((?P<path>.*?)(?::\d+)?\)")
_RATE = "250"
_PATIENCE = 60.0

LOOP = "event loop"
WORKERS = "SQLite and other Python threads"
NATIVE = "gRPC's own threads"


@dataclass(frozen=True, slots=True)
class Profile:
    """CPU seconds by kind of thread; samples by function, ``alone`` and ``whole`` with what it calls.

    ``problem`` says why there are no samples.
    """

    threads: Mapping[str, float]
    samples: int
    alone: Mapping[str, int]
    whole: Mapping[str, int]
    problem: str = ""


def take(server: Child, seconds: int, into: Path) -> Profile:
    """Profile ``server`` for so long; ``into`` is a file for the samples."""
    before = _threads(server.pid)
    problem = _sample(server.pid, seconds, into)
    after = _threads(server.pid)
    threads: Counter[str] = Counter()
    for thread, (kind, used) in after.items():
        threads[kind] += used - before.get(thread, (kind, 0))[1]
    spent = {kind: round(nanoseconds / 1e9, 3) for kind, nanoseconds in threads.most_common()}
    if problem:
        return Profile(spent, 0, {}, {}, f"py-spy could not sample: {problem}")
    alone, whole = count(into.read_text().splitlines())
    return Profile(spent, alone.total(), dict(alone.most_common(40)), dict(whole.most_common(200)))


def _sample(pid: int, seconds: int, into: Path) -> str:
    """Let py-spy write its samples; returns why it could not, "" where it did."""
    what = ["--pid", str(pid), "--subprocesses", "--duration", str(seconds), "--rate", _RATE, "--gil"]
    command = [str(Path(sys.executable).with_name("py-spy")), "record", *what]
    try:
        done = subprocess.run(
            [*command, "--format", "raw", "--output", str(into)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + _PATIENCE,
            check=False,
        )
    except OSError as error:
        return f"{error.strerror}; it comes with the development environment"
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds + _PATIENCE:.0f} s"
    said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return said[-1] if done.returncode else ""


def count(stacks: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count samples by function from lines ``outermost;...;innermost N``: alone, and with what it calls."""
    alone: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in stacks:
        stack, _, number = line.rpartition(" ")
        if not number.isdigit():
            continue  # of a process's command line, which stands first in a stack, and may have several lines
        names = [found for frame in stack.split(";") if (found := _name(frame))] or ["(none)"]
        alone[names[-1]] += int(number)
        whole.update(dict.fromkeys(names, int(number)))
    return alone, whole


def _name(frame: str) -> str:
    found = _FRAME.fullmatch(frame)
    return f"{found['path'].removesuffix('.py')}: {found['function']}" if found else ""


def _threads(pid: int) -> dict[int, tuple[str, int]]:
    """Return kind and CPU nanoseconds of each thread of a process and all that it has started."""
    found: dict[int, tuple[str, int]] = {}
    for one in machine.family(pid):
        with suppress(OSError):  # it ended between the two looks
            found |= _threads_of(one)
    return found


def _threads_of(pid: int) -> dict[int, tuple[str, int]]:
    # Threads of Python bear the name of the process.
    own = Path(f"/proc/{pid}/comm").read_text()
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        try:
            used, name = (folder / "schedstat").read_text().split()[0], (folder / "comm").read_text()
        except OSError:
            continue  # it ended between the two looks
        kind = LOOP if int(folder.name) == pid else WORKERS if name == own else NATIVE
        found[int(folder.name)] = (kind, int(used))
    return found
