"""``fleetwright`` as operators run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.process import environment

PROGRAM = str(Path(sys.executable).with_name("fleetwright"))


def command(
    *arguments: str | Path, preexec: Callable[[], None] | None = None, **variables: str
) -> tuple[int, str, str]:
    """Run ``fleetwright``; return its exit status and what it printed."""
    ended = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        env=environment(variables),
        preexec_fn=preexec,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr
