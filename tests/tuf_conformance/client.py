#!/usr/bin/env python3
"""The client that agents use, as TUF's public conformance suite calls one (its CLIENT-CLI.md).

The suite (https://github.com/theupdateframework/tuf-conformance) runs it as its entry point, from a checkout
of its own:

    pytest tuf_conformance --entrypoint .../tests/tuf_conformance/client.py

Nothing is added here: ``fleetwright.verify.tuf_client`` is the program.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proto" / "python"))

from fleetwright.verify.tuf_client import main

if __name__ == "__main__":
    sys.exit(main())
