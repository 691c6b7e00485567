"""Named places at which a test can kill, stop or stall the process.

Each place is a line ``failpoints.hit("tasks.after_commit")`` in product code. It
costs one dictionary look-up unless armed. Armed by the setting ``failpoints``,
for example ``tasks.after_commit=kill@20``: at the twentieth hit the process ends
as by ``kill -9``, with nothing flushed and nothing handled. ``stop`` in the place
of ``kill`` stops it as SIGSTOP does, until somebody continues it; ``stall=3s``
keeps its thread, most often the event loop's, for three seconds. Either happens
once. Of a server of several processes ``gateway-1/tasks.after_commit=kill@20`` names
the one that it is for; without such a name it is for each of them.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

NAMES = frozenset(
    {
        "pipelines.after_begin",
        "pipelines.before_commit",
        "pipelines.after_commit",
        "releases.before_commit",
        "releases.after_commit",
        "tasks.after_receive",
        "tasks.after_create",
        "leases.after_commit",
        "leases.after_send",
        "accepts.after_receive",
        "accepts.after_commit",
        "results.after_receive",
        "results.after_commit",
        "results.after_acknowledge",
        "telemetry.after_receive",
        "telemetry.after_commit",
        "telemetry.after_acknowledge",
        "sweep.before_commit",
        "sweep.after_commit",
        "slice.before_commit",
        "slice.after_commit",
        "schedules.after_run",
        "restore.before_commit",
        "restore.after_commit",
        "restore.between_moves",
        "writer.before_commit",
        "writer.after_commit",
    }
)

_FORM = re.compile(
    r"(?:(?P<part>[a-z0-9-]+)/)?(?P<name>[^=/]+)="
    r"(?:(?P<verb>kill|stop)|stall=(?P<seconds>[0-9]+(?:\.[0-9]+)?)s)@(?P<count>[1-9][0-9]*)"
)


@dataclass(slots=True)
class _Armed:
    left: int
    act: Callable[[], None]


_armed: dict[str, _Armed] = {}


def arm(specification: str, part: str = "") -> None:
    """Arm failpoints from ``[part/]name=verb@N[,…]``; replaces what was armed.

    ``part`` is this process's own name. Raises ``ValueError`` for a name that no code
    has or a form that is not this, and arms nothing then.
    """
    armed: dict[str, _Armed] = {}
    for word in filter(None, specification.split(",")):
        found = _FORM.fullmatch(word)
        if found is None or found["name"] not in NAMES:
            raise ValueError(
                f"failpoints: {word!r} is not NAME=VERB@N with N from 1, VERB one of kill, stop and "
                f"stall=3s, and NAME one of {', '.join(sorted(NAMES))}"
            )
        if found["part"] in (None, part):
            armed[found["name"]] = _Armed(int(found["count"]), _action(found))
    _armed.clear()
    _armed.update(armed)


def hit(name: str) -> None:
    """Pass the place ``name``; does what it is armed with when its count is reached."""
    armed = _armed.get(name)
    if armed is None:
        return
    armed.left -= 1
    if armed.left == 0:
        del _armed[name]
        armed.act()


def _action(found: re.Match[str]) -> Callable[[], None]:
    if found["seconds"]:
        seconds = float(found["seconds"])
        return lambda: time.sleep(seconds)
    number = signal.SIGKILL if found["verb"] == "kill" else signal.SIGSTOP
    return lambda: os.kill(os.getpid(), number)
