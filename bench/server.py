"""The product's server as a run starts it: ``fleetwright serve``, with a sampler that a command wakes.

Until then one thread waits for standard input and nothing else differs. Where standard input ends,
the process does: a run that was killed leaves no server behind.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from bench.sampling import sample
from controlplane.cli.main import main as fleetwright


def end_with_standard_input() -> None:
    """Take commands from standard input, a line of JSON each; end the process where it ends.

    ``{"do": "profile", "seconds": S, "into": PATH}`` samples for so long and writes what it found.
    """
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "profile":
            found = sample(command["seconds"])
            Path(command["into"]).write_text(json.dumps(found))
    os._exit(0)


def main() -> None:
    """Run ``fleetwright`` with the arguments of the command line."""
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    fleetwright()


if __name__ == "__main__":
    main()
