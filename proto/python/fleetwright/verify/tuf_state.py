"""The folder of a TUF client: locking it, mending it, and remembering the clock.

root.json, timestamp.json, ...     the newest metadata that was good, under names without versions
root_history/                      every root on the way from the trusted one
clock, lock                        the time of the last good refresh; who uses the folder
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from fleetwright.verify.errors import StateError

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""By how much a clock may be set back without a word: time servers correct by less."""

_LARGEST = 64 * 1024 * 1024
_HISTORY = "root_history"


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the folder, which is made where it is missing, against other processes. Raises ``StateError``."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"{state}: {error.strerror}: make it a folder that this user may write") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateError(f"{state}: another process uses it: wait until it has ended") from None
        yield
    finally:
        os.close(descriptor)


def mend(state: Path) -> tuple[str, ...]:
    """Remove what is broken, so that it is fetched again, and return what. Raises ``StateError``."""
    broken = []
    try:
        history = state / _HISTORY
        if history.is_symlink() or (history.exists() and not history.is_dir()):
            broken.append(_remove(history, state))
        for path in sorted([*state.glob("*.json"), *history.glob("*.json")]):
            if not _is_sound(path):
                broken.append(_remove(path, state))
    except OSError as error:
        raise StateError(f"{state}: {error}: make the folder writable, or remove it to begin anew") from None
    return tuple(broken)


def _is_sound(path: Path) -> bool:
    """Whether a file is readable metadata. Whether it is true is judged by its signatures, later."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "signed" in content


def _remove(path: Path, state: Path) -> str:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return str(path.relative_to(state))


def read_clock(state: Path) -> datetime | None:
    """Return when the last good refresh was; None where nobody knows."""
    try:
        moment = datetime.fromisoformat((state / "clock").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None


def write_clock(state: Path, now: datetime) -> None:
    """Remember when a refresh was good. Raises ``StateError``."""
    write(state / "clock", now.astimezone(UTC).isoformat().encode())


def stamps(state: Path) -> dict[Path, int]:
    """Return when each file of metadata was written, in nanoseconds. Raises ``StateError``."""
    try:
        found = (*state.glob("*.json"), *(state / _HISTORY).glob("*.json"))
        return {path: path.stat().st_mtime_ns for path in found}
    except OSError as error:
        raise StateError(f"{state}: {error}: make the folder writable, or remove it to begin anew") from None


def settle(state: Path, before: Mapping[Path, int]) -> None:
    """Have the disk keep what was written since ``stamps`` said ``before``: what a power cut takes back, an
    attacker may show again. Raises ``StateError``.
    """
    changed = [path for path, stamp in stamps(state).items() if before.get(path) != stamp]
    try:
        for path in changed:
            _sync(path)
        if changed:
            _sync(state)
    except OSError as error:
        raise StateError(f"{state}: {error}: make the folder writable, or remove it to begin anew") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes) -> None:
    """Write a file of the state in one step. Raises ``StateError``."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as fresh:
            fresh.write(content)
        try:
            os.replace(fresh.name, path)
        except OSError:
            with suppress(OSError):
                os.unlink(fresh.name)
            raise
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: make its folder writable") from None
