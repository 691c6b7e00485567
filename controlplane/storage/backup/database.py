"""Copying the database of a running server, and judging a copy.

A copy is made by SQLite's online backup, some pages at a time, inside one read
transaction on the source. Without that transaction another process's commit begins the
copy anew, and under steady writing it never ends; with it the copy is the database of one
commit. ``docs/decisions/0015-online-backup.md`` has the measurement. The server's writer
is not held up; its log cannot be folded into the database meanwhile, and grows.

A compact copy is made by VACUUM INTO, which writes every row anew and leaves out free space.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from controlplane.storage.backup.errors import UnsoundDatabase

_PAGES = 1_000
"""Copied at once: 4 MiB, and then the disk is the server's for a moment."""

_PAUSE = 0.005  # seconds, between two steps

Copied = Callable[[int, int], None]
"""Told how many bytes are done, of how many."""


_LOOK_EVERY = 1_000_000  # of SQLite's steps: some tens of milliseconds


def copy(source: Path, target: Path, copied: Copied, *, compact: bool) -> None:
    """Copy the last commit of the database ``source`` to the new file ``target``, durably.

    ``compact`` leaves out free space. Raises ``sqlite3.Error`` and ``OSError``.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    (_write_anew if compact else _copy_pages)(source, target, copied)
    _sync(target)


def _write_anew(source: Path, target: Path, copied: Copied) -> None:
    size, ended = source.stat().st_size, []

    def look() -> int:
        try:
            copied(min(target.stat().st_size, size), size)
        except BaseException as error:  # noqa: BLE001 - Ctrl-C too: SQLite would make its own error of it
            ended.append(error)
        return len(ended)

    with closing(_open(source, "mode=rw")) as original:
        original.set_progress_handler(look, _LOOK_EVERY)
        try:
            original.execute("VACUUM INTO ?", (str(target),))
        except sqlite3.Error:
            if ended:
                raise ended[0] from None
            raise
    copied(size, size)


def _copy_pages(source: Path, target: Path, copied: Copied) -> None:
    with closing(_open(source, "mode=rw")) as original, closing(_open(target, "mode=rw")) as fresh:
        original.execute("PRAGMA query_only=ON")
        page_size = int(original.execute("PRAGMA page_size").fetchone()[0])
        # The file is of no use until it is whole, and is synced then.
        fresh.execute("PRAGMA journal_mode=OFF")
        fresh.execute("PRAGMA synchronous=OFF")
        original.execute("BEGIN")
        original.execute("SELECT count(*) FROM sqlite_master").fetchone()
        original.backup(
            fresh,
            pages=_PAGES,
            sleep=_PAUSE,
            progress=lambda _status, left, total: copied((total - left) * page_size, total * page_size),
        )
        original.execute("ROLLBACK")


def begin_anew(path: Path) -> None:
    """Give the copy ``path`` another ``inspection.history``, durably: it goes on otherwise than its original.

    Raises ``sqlite3.Error`` and ``OSError``.
    """
    with closing(_open(path, "mode=rw")) as connection:
        connection.execute(f"PRAGMA user_version = {secrets.randbits(31)}")
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(path: Path, *, thoroughly: bool) -> str:
    """Check the copy ``path`` and return its schema's revision.

    Raises ``UnsoundDatabase``. ``thoroughly`` compares the indexes with their tables, too.
    """
    pragma = "integrity_check" if thoroughly else "quick_check"
    try:
        # Immutable: nothing is made beside it, and no log is looked for.
        with closing(_open(path, "immutable=1")) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            found = str(connection.execute(f"PRAGMA {pragma}(1)").fetchone()[0])
            if found != "ok":
                raise UnsoundDatabase(f"is damaged ({' '.join(found.split())})")
            return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    except (sqlite3.Error, TypeError) as error:
        raise UnsoundDatabase(f"cannot be read ({error})") from error


def _open(path: Path, how: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{how}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
