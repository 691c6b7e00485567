"""``fleetwright`` as operators run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.process import environment

PROGRAM = str(Path(sys.executable).with_name("fleetwright"))


def command(*arguments: str | Path, file_blocks: int | None = None, **variables: str) -> tuple[int, str, str]:
    """Run ``fleetwright``; return its exit status and what it printed.

    Its files may have ``file_blocks`` of 512 bytes: limited by a shell, for code between a fork and what
    follows it is not safe beside gRPC's threads.
    """
    limit = () if file_blocks is None else ("sh", "-c", f'ulimit -S -f {file_blocks}; exec "$@"', "sh")
    ended = subprocess.run(
        [*limit, PROGRAM, *map(str, arguments)],
        env=environment(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr
