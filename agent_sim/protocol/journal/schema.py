"""The journal's SQLite file: its tables, opening it, and setting a broken one aside."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import uuid
from pathlib import Path

from fleetwright.v1 import work_pb2

from agent_sim.protocol.errors import JournalError
from agent_sim.protocol.journal.port import fill_lengths

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


def open_database(path: Path) -> sqlite3.Connection:
    """Open the journal's file, making it where it is missing.

    A file that is not a sound database is renamed to ``<name>.corrupt-<seconds>``
    and a new journal is begun, with a new journal id. Raises JournalError where
    the file was written by a newer program, is in use, or cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return _open(path)
    except sqlite3.OperationalError as error:
        raise JournalError(
            f"journal {path}: {error}; check its folder's owner, space, and other agents"
        ) from error
    except sqlite3.DatabaseError as error:
        log.error("journal %s is corrupt (%s): set aside, a new one is begun", path, error)
    _set_aside(path)
    try:
        return _open(path)
    except sqlite3.Error as error:
        raise JournalError(f"journal {path}: {error}; a new one could not be begun either") from error


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
            raise sqlite3.DatabaseError("quick_check found damage")
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
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR IGNORE INTO meta VALUES (1, ?, x'', 0)", (uuid.uuid4().hex,))
    connection.execute("COMMIT")


def _set_aside(path: Path) -> None:
    suffix = f".corrupt-{int(time.time())}"
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if name.exists():
            os.replace(name, name.with_name(name.name + suffix))


def interrupt_running(connection: sqlite3.Connection, now_seconds: float) -> list[str]:
    """Give every attempt that was running when the process ended the result INTERRUPTED.

    Idempotent ones too: whether one is run again is the server's decision.
    Returns their ids.
    """
    connection.execute("BEGIN IMMEDIATE")
    rows = connection.execute(
        "SELECT attempt_id, start_time FROM attempts WHERE state = 'running'"
    ).fetchall()
    for attempt_id, start_micros in rows:
        result = work_pb2.AttemptResult(
            outcome=work_pb2.OUTCOME_INTERRUPTED,
            reason="the agent's process ended while the work ran; whether it had an effect is not known",
        )
        if start_micros is not None:
            result.start_time.FromMicroseconds(start_micros)
        result.end_time.FromMicroseconds(int(now_seconds * 1e6))
        fill_lengths(result, output_lengths(connection, attempt_id))
        connection.execute(
            "UPDATE attempts SET state = 'finished', result = ? WHERE attempt_id = ?",
            (result.SerializeToString(), attempt_id),
        )
    connection.execute("COMMIT")
    return [attempt_id for attempt_id, _ in rows]


def output_lengths(
    connection: sqlite3.Connection, attempt_id: str
) -> dict[work_pb2.OutputStream.ValueType, int]:
    """Return how long each output of an attempt is, in bytes."""
    rows = connection.execute(
        "SELECT stream, sum(length(data)) FROM output WHERE attempt_id = ? GROUP BY stream", (attempt_id,)
    )
    return {work_pb2.OutputStream.ValueType(stream): length for stream, length in rows}
