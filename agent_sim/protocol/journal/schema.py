"""The journal's SQLite file: its tables, opening it, and setting a broken one aside."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fleetwright.v1 import agent_service_pb2, work_pb2
from google.protobuf.message import DecodeError

from agent_sim.protocol.errors import JournalError
from agent_sim.protocol.journal.port import fill_lengths
from agent_sim.protocol.journal.reserve import out_of_room

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1

_TABLES = """
CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    journal_id TEXT NOT NULL,
    nonce BLOB NOT NULL,
    last_sequence INTEGER NOT NULL
) STRICT;
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    attempt_id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('journaled', 'running', 'finished')),
    assignment BLOB NOT NULL,
    start_time INTEGER,
    result BLOB
) STRICT;
CREATE TABLE output (
    attempt_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    first_byte INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (attempt_id, ordinal)
) STRICT;
CREATE TABLE points (
    sequence INTEGER PRIMARY KEY,
    point BLOB NOT NULL
) STRICT;
"""


_CORRUPT = ".corrupt-"
_NAMES = frozenset({"meta", "attempts", "output", "points"})


def open_database(path: Path) -> sqlite3.Connection:
    """Open the journal's file, making it where it is missing.

    A file that is not a sound database is renamed to ``<name>.corrupt-<seconds>``
    and a new journal is begun, with a new journal id, and with the nonce of the old one
    where that can still be read. Raises JournalError where the file was written by a
    newer program, is in use, or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _open(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise JournalError(
                f"journal {path}: {error}; check its folder's owner, space, and other agents"
            ) from error
        log.error("journal %s is corrupt (%s): set aside, a new one is begun", path, error)
    except OSError as error:
        raise JournalError(
            f"journal {path}: {error.strerror}; check its folder's owner, and that it may be written"
        ) from error
    nonce = _salvaged_nonce(path)
    _set_aside(path)
    try:
        connection = _open(path)
        connection.execute("UPDATE meta SET nonce = ?", (nonce,))
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"journal {path}: {error}; a new one could not be begun either") from error
    return connection


_DAMAGE = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_IOERR_SHORT_READ}
)
_PRIMARY_CODE = 0xFF


class _DamagedError(sqlite3.DatabaseError):
    """The file is a database, and not a sound one of a journal."""


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    return isinstance(error, _DamagedError) or code in _DAMAGE or code & _PRIMARY_CODE in _DAMAGE


def _salvaged_nonce(path: Path) -> bytes:
    """Return the nonce of a damaged journal, or none: without it the agent looks like a copy of itself."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as damaged:
            [nonce] = damaged.execute("SELECT nonce FROM meta").fetchone()
    except (sqlite3.Error, TypeError, ValueError):
        return b""
    return nonce if isinstance(nonce, bytes) else b""


def _open(path: Path) -> sqlite3.Connection:
    # Made here, because SQLite would make it readable for others.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        # One process at a time: a second agent on the same journal would run everything twice.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL, not NORMAL: an accepted attempt must survive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise _DamagedError("quick_check found damage")
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"journal {path}: schema {version} is newer than {SCHEMA_VERSION}, which this program knows; "
            "run the newer program, or move the file away"
        )
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if version < 0 or (version == 0 and tables) or (version > 0 and not tables >= _NAMES):
        raise _DamagedError(f"schema {version} does not have the tables that it should")
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR IGNORE INTO meta VALUES (1, ?, x'', 0)", (uuid.uuid4().hex,))
    connection.execute("COMMIT")


def set_aside(path: Path) -> list[Path]:
    """Return the damaged journals that were set aside beside the one at ``path``, without their logs."""
    return sorted(path.parent.glob(f"{path.name}{_CORRUPT}*"))


def _set_aside(path: Path) -> None:
    suffix = f"{_CORRUPT}{int(time.time())}"
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if name.exists():
            os.replace(name, name.with_name(name.name + suffix))


def interrupt_running(
    connection: sqlite3.Connection, now_seconds: float, more_room: Callable[[], bool]
) -> list[str]:
    """Give every attempt that was running when the process ended the result INTERRUPTED.

    Idempotent ones too: whether one is run again is the server's decision. On a full
    disk ``more_room`` is asked for some, until it has none. Returns their ids. Raises JournalError.
    """
    while True:
        try:
            return _interrupt_running(connection, now_seconds)
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not (out_of_room(error) and more_room()):
                raise JournalError(f"the journal cannot be written: {error}; check its disk") from error


def _interrupt_running(connection: sqlite3.Connection, now_seconds: float) -> list[str]:
    connection.execute("BEGIN IMMEDIATE")
    rows = connection.execute(
        "SELECT attempt_id, start_time FROM attempts WHERE state = 'running'"
    ).fetchall()
    ends = [(attempt_id, interrupted(_CUT_OFF, start, now_seconds)) for attempt_id, start in rows]
    waiting = connection.execute("SELECT attempt_id, assignment FROM attempts WHERE state = 'journaled'")
    ends += [
        (attempt_id, interrupted("the journal's record of the work is damaged", None, now_seconds))
        for attempt_id, assignment in waiting
        if not _readable(assignment)
    ]
    for attempt_id, result in ends:
        fill_lengths(result, output_lengths(connection, attempt_id))
        connection.execute(
            "UPDATE attempts SET state = 'finished', result = ? WHERE attempt_id = ?",
            (result.SerializeToString(), attempt_id),
        )
    connection.execute("COMMIT")
    return [attempt_id for attempt_id, _ in ends]


_CUT_OFF = "the agent's process ended while the work ran; whether it had an effect is not known"


def interrupted(reason: str, start_micros: int | None, now_seconds: float) -> work_pb2.AttemptResult:
    """Return the result of an attempt that the journal itself has to end."""
    result = work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_INTERRUPTED, reason=reason)
    ended = int(now_seconds * 1e6)
    if start_micros is not None:
        result.start_time.FromMicroseconds(start_micros)
        # The clock may have been set back meanwhile.
        ended = max(ended, start_micros)
    result.end_time.FromMicroseconds(ended)
    return result


def _readable(assignment: bytes) -> bool:
    try:
        agent_service_pb2.Assignment.FromString(assignment)
    except DecodeError:
        return False
    return True


def output_lengths(
    connection: sqlite3.Connection, attempt_id: str
) -> dict[work_pb2.OutputStream.ValueType, int]:
    """Return how long each output of an attempt is, in bytes."""
    rows = connection.execute(
        "SELECT stream, sum(length(data)) FROM output WHERE attempt_id = ? GROUP BY stream", (attempt_id,)
    )
    return {work_pb2.OutputStream.ValueType(stream): length for stream, length in rows}
