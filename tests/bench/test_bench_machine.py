"""What processes have used."""

from __future__ import annotations

import subprocess
import sys

from bench import machine

BURNS = "import time\nwhile time.process_time() < 0.1: pass"
STARTS_IT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURNS!r}])
print("", flush=True)
sys.stdin.read()
"""


def test_what_a_process_that_ended_had_used_is_still_counted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_IT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert machine.family(process.pid) == [process.pid], "what burned is gone"
        own = machine.cpu_seconds(process.pid)
        assert machine.cpu_of_family(process.pid) - own >= 0.09
        process.communicate()
