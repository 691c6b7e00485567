"""What the programs can be told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.process import environment


def options_of(program: str, *verbs: str) -> set[str]:
    """Return the options that ``--help`` of a command lists. Raises where there is no such command."""
    shown = subprocess.run(
        [Path(sys.executable).with_name(program), *verbs, "--help"],
        env=environment({"COLUMNS": "200"}),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r"--[a-z][a-z-]+", shown.stdout))
