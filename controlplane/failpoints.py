"""Named places at which a test can kill the process.

Each place is a line ``failpoints.hit("tasks.after_commit")`` in product code. It
costs one dictionary look-up unless armed. Armed by the setting ``failpoints``,
for example ``tasks.after_commit=kill@20``: at the twentieth hit the process ends
as by ``kill -9``, with nothing flushed and nothing handled.
"""

from __future__ import annotations

import os
import signal

NAMES = frozenset(
    {
        "results.after_receive",
        "results.after_acknowledge",
        "telemetry.after_receive",
        "telemetry.after_acknowledge",
        "tasks.after_create",
        "tasks.after_slice",
        "restore.before_commit",
        "restore.after_commit",
        "restore.between_moves",
        "writer.before_commit",
        "writer.after_commit",
    }
)

_armed: dict[str, int] = {}


def arm(specification: str) -> None:
    """Arm failpoints from ``name=kill@N[,name=kill@N…]``; replaces what was armed.

    Raises ``ValueError`` for a name that no code has or a form that is not this, and
    arms nothing then.
    """
    counts: dict[str, int] = {}
    for part in filter(None, specification.split(",")):
        name, _, action = part.partition("=")
        verb, _, count = action.partition("@")
        if name not in NAMES or verb != "kill" or not count.isdigit() or int(count) < 1:
            raise ValueError(
                f"failpoints: {part!r} is not NAME=kill@N with N from 1 and NAME one of "
                f"{', '.join(sorted(NAMES))}"
            )
        counts[name] = int(count)
    _armed.clear()
    _armed.update(counts)


def hit(name: str) -> None:
    """Pass the place ``name``; ends the process when it is armed and its count is reached."""
    left = _armed.get(name)
    if left is None:
        return
    if left <= 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _armed[name] = left - 1
