"""A sampling profiler inside the process: whose CPU time was it?

A hundred times a second, the CPU time that each thread has used since the last look is put down to
the Python functions on its stack. So a thread that waits counts for nothing, the threads of gRPC and
SQLite that run no Python have a line of their own, and no permission to trace is needed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

_INTERVAL = 0.01
_NATIVE = "(native threads: TLS, HTTP/2, timers)"
_IDLE = "(event loop, no Python on the stack)"
_ROOT = Path(__file__).parents[1]


def sample(seconds: float) -> dict[str, Any]:
    """Sample this process for so long; returns ``cpu``, ``own`` and ``with_calls`` in CPU seconds."""
    own: Counter[str] = Counter()
    with_calls: Counter[str] = Counter()
    used = _thread_times()
    me = threading.get_native_id()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(_INTERVAL)
        frames = sys._current_frames()
        threads = {thread.native_id: frames.get(thread.ident or 0) for thread in threading.enumerate()}
        now = _thread_times()
        for thread_id, total in now.items():
            spent = total - used.get(thread_id, 0)
            if spent <= 0 or thread_id == me:
                continue
            names = _stack(threads.get(thread_id)) if thread_id in threads else [_NATIVE]
            own[names[0]] += spent
            with_calls.update(dict.fromkeys(names, spent))
        used = now
    return {
        "cpu": sum(own.values()) / 1e9,
        "own": {name: spent / 1e9 for name, spent in own.most_common(60)},
        "with_calls": {name: spent / 1e9 for name, spent in with_calls.most_common(120)},
    }


def _thread_times() -> dict[int, int]:
    """Return the CPU time of each thread of this process, in nanoseconds."""
    times = {}
    for path in Path("/proc/self/task").iterdir():
        try:
            times[int(path.name)] = int((path / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it ended between the two looks
    return times


def _stack(frame: FrameType | None) -> list[str]:
    names: list[str] = []
    while frame is not None:
        names.append(_name(frame))
        frame = frame.f_back
    return names or [_IDLE]


def _name(frame: FrameType) -> str:
    code = frame.f_code
    path = Path(code.co_filename)
    short = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) and ".venv" not in path.parts else None
    module = str(short) if short else "/".join(path.parts[-2:])
    return f"{module.removesuffix('.py')}:{code.co_qualname}"
