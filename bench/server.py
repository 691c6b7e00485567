"""The product's server as a run starts it: ``fleetwright`` itself, which ends with its standard input.

One thread waits for that end and nothing else differs, so that a run which was killed leaves no
server behind.
"""

from __future__ import annotations

import os
import sys
import threading

from controlplane.cli.main import main as fleetwright


def end_with_standard_input() -> None:
    """Wait for the end of standard input, and end the process."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Run ``fleetwright`` with the arguments of the command line."""
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    fleetwright()


if __name__ == "__main__":
    main()
