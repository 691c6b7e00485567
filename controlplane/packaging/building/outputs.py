"""Writing a package file so that it is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from controlplane.packaging.building.errors import BuildFailed


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes its name when all is written and on the disk; on an error nothing of it stays.

    Raises ``BuildFailed`` where the folder cannot be written to.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w+b") as output:
            # Whatever the umask of whoever runs this.
            os.fchmod(output.fileno(), 0o644)
            yield output
            output.flush()
            os.fsync(output.fileno())
        partial.replace(path)
    except OSError as error:
        raise BuildFailed("OUTPUT", path.name, f"cannot be written: {error.strerror}") from error
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def digest(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file; raises ``BuildFailed`` where it cannot be read."""
    try:
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest(), source.tell()
    except OSError as error:
        raise BuildFailed("UNREADABLE", path.name, f"cannot be read: {error.strerror}") from error
