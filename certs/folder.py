"""Where identities are written: a private folder, files only for their owner, none replaced unasked."""

from __future__ import annotations

import os
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


class AlreadyThereError(Exception):
    """A file to be written is there already, and nobody said to replace it."""


class IdentityFolder:
    """A folder of keys and certificates.

    Args:
        path: made with mode 0700 where it is missing.
        replace: whether files that exist may be replaced.
    """

    def __init__(self, path: Path, *, replace: bool) -> None:
        self.path = path
        self._replace = replace

    def write(self, files: dict[str, bytes]) -> list[Path]:
        """Write all files or, where one exists already, none.

        Raises:
            AlreadyThereError: a file exists and `replace` is False.
            OSError: the folder cannot be made or written.
        """
        self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        taken = [self.path / name for name in files if (self.path / name).exists()]
        if taken and not self._replace:
            raise AlreadyThereError(f"{taken[0]} exists already; --force replaces it")
        return [self._write_one(self.path / name, content) for name, content in files.items()]

    def _write_one(self, path: Path, content: bytes) -> Path:
        # Into a fresh file that takes the place of the old one: the mode holds from the first byte,
        # and a reader sees the old or the new content, never half of it.
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.replace(path)
        return path
