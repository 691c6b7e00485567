"""The root that comes with an identity, by which packages are judged: its file.

Whoever can write that file says what is installed, so it is its owner's alone, and a crash leaves it whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

TRUSTED_ROOT: Final = "trusted-root.json"
"""The file's name, beside the identity that it came with."""

LARGEST_ROOT: Final = 512 * 1024
"""Bytes of EnrollResponse.trusted_root that are taken, as the contract says."""


def write_root(folder: Path, content: bytes) -> None:
    """Write the file into ``folder`` in one step, durably. Raises ``OSError``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = folder / f".{TRUSTED_ROOT}.new"
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / TRUSTED_ROOT)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
