"""The journal in a SQLite file of its own."""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fleetwright.v1 import agent_service_pb2, work_pb2
from google.protobuf.message import DecodeError

from agent_sim.protocol.errors import JournalFullError
from agent_sim.protocol.journal import schema
from agent_sim.protocol.journal.port import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_POINTS,
    JournalEntry,
    OutputRecord,
    PointRange,
    cut,
    fill_lengths,
)
from agent_sim.protocol.journal.reserve import DEFAULT_RESERVE_BYTES, Reserve
from agent_sim.protocol.journal.sent import SentPoints
from agent_sim.protocol.journal.writer import Worth, Writer
from agent_sim.protocol.rules import Admission, AttemptIndex, AttemptState

log = logging.getLogger(__name__)


class SQLiteJournal:
    """Implements Journal durably: WAL, synchronous=FULL, one writer thread, one process at a time."""

    def __init__(
        self,
        path: Path,
        *,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        max_points: int = DEFAULT_MAX_POINTS,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
    ) -> None:
        """Open or make the journal at ``path``; blocks, so open it before the event loop is busy.

        Attempts that were running are INTERRUPTED from now on. A corrupt file is set
        aside. Beside it ``reserve_bytes`` of the disk are kept for results. Raises
        JournalError.
        """
        self._reserve = Reserve(path.with_name(path.name + "-reserve"), reserve_bytes)
        connection = schema.open_database(path)
        self._set_aside = len(schema.set_aside(path))
        interrupted = schema.interrupt_running(connection, time.time(), self._reserve.release)
        if interrupted:
            log.warning("%d attempts were interrupted by the end of the process", len(interrupted))
        row = connection.execute("SELECT journal_id, nonce, last_sequence FROM meta").fetchone()
        self._journal_id: str = row[0]
        self._nonce: bytes = row[1]
        self._last_sequence: int = row[2]
        # What an earlier process queued, it may have sent.
        self._sent = SentPoints(up_to=self._last_sequence)
        self._boot_id = uuid.uuid4().hex
        self._index = AttemptIndex(max_attempts)
        for attempt_id, task, state in connection.execute(
            "SELECT attempt_id, task, state FROM attempts ORDER BY number"
        ):
            self._index.restore(attempt_id, task, AttemptState(state))
        self._queued: int = connection.execute("SELECT count(*) FROM points").fetchone()[0]
        self._max_points = max_points
        self._has_room = self._reserve.fill()
        self._shed_told = 0
        self.when_full: Callable[[], None] = _nothing
        self._writer = Writer(connection, path.name, self._reserve, self._shed_points, self._filled_up)

    @property
    def journal_id(self) -> str:
        """Id of this journal."""
        return self._journal_id

    @property
    def boot_id(self) -> str:
        """Id of this boot."""
        return self._boot_id

    @property
    def nonce(self) -> bytes:
        """Session nonce stored last; empty where none was."""
        return self._nonce

    @property
    def has_room(self) -> bool:
        """Whether it takes new attempts."""
        return self._has_room

    @property
    def reserve_share(self) -> float:
        """How much of the space kept for results is left, from 0 to 1."""
        return self._reserve.share

    @property
    def set_aside(self) -> int:
        """How many damaged journals stand set aside beside this one."""
        return self._set_aside

    async def recover(self) -> bool:
        """Find out by writing whether there is room again, and take the reserve back."""
        if not self._has_room:
            try:
                whole = await self._writer.run(lambda _: self._reserve.fill())
                await self._writer.run(lambda db: db.execute(_TRY, (_TRY_BYTES,)) and None)
                await self._writer.run(lambda db: db.execute(_END_TRY) and None, Worth.RESERVE)
                # Of what was given up meanwhile to make room, only the writer knew.
                self._queued = await self._writer.run(_count_points)
                self._has_room = whole
            except JournalFullError:
                return False
        return self._has_room

    def _filled_up(self) -> None:
        self._has_room = False
        self.when_full()

    @staticmethod
    def _shed_points(db: sqlite3.Connection) -> int:
        """Remove the oldest quarter of the points, in the writer's thread; returns how many they were."""
        return db.execute(_DROP_OLDEST, (max(_count_points(db) // 4, _SHED_AT_LEAST),)).rowcount

    async def store_nonce(self, nonce: bytes) -> None:
        """Keep the nonce of a Welcome; without room the former one stays."""
        try:
            await self._writer.run(
                lambda db: db.execute("UPDATE meta SET nonce = ?", (nonce,)) and None, Worth.RESERVE
            )
        except JournalFullError:
            log.error("no room for the nonce: the former one is shown again")
        else:
            self._nonce = nonce

    async def add(self, assignment: agent_service_pb2.Assignment) -> Admission:
        """Journal an assignment, if the rules admit it."""
        attempt_id = assignment.attempt_id
        admission = self._index.admit(attempt_id, assignment.task)
        if admission is not Admission.NEW:
            return admission
        if not self._has_room:
            self._index.remove(attempt_id)
            return Admission.FULL
        row = (attempt_id, assignment.task, assignment.SerializeToString())
        statement = "INSERT INTO attempts (attempt_id, task, state, assignment) VALUES (?, ?, 'journaled', ?)"
        try:
            await self._writer.run(lambda db: db.execute(statement, row) and None)
        except JournalFullError:
            self._index.remove(attempt_id)
            return Admission.FULL
        except BaseException:
            # Not durable as far as anyone was told: the server will hand it out again.
            self._index.remove(attempt_id)
            raise
        self._index.move(attempt_id, AttemptState.JOURNALED)
        return admission

    async def start(self, attempt_id: str) -> None:
        """Mark an attempt RUNNING."""
        row = (time.time_ns() // 1000, attempt_id)
        statement = "UPDATE attempts SET state = 'running', start_time = ? WHERE attempt_id = ?"
        if self._index.state(attempt_id) is not AttemptState.RUNNING:
            self._index.move(attempt_id, AttemptState.RUNNING)
        await self._writer.run(lambda db: db.execute(statement, row) and None, Worth.RESERVE)

    async def append_output(
        self, attempt_id: str, stream: work_pb2.OutputStream.ValueType, data: bytes
    ) -> None:
        """Append ``data`` to an output of an attempt."""
        await self._writer.run(lambda db: _append_output(db, attempt_id, stream, data), Worth.TELEMETRY)

    async def finish(self, attempt_id: str, result: work_pb2.AttemptResult) -> None:
        """Journal a result."""

        def operation(db: sqlite3.Connection) -> None:
            fill_lengths(result, schema.output_lengths(db, attempt_id))
            db.execute(
                "UPDATE attempts SET state = 'finished', result = ? WHERE attempt_id = ?",
                (result.SerializeToString(), attempt_id),
            )

        await self._writer.run(operation, Worth.RESERVE)
        self._index.move(attempt_id, AttemptState.FINISHED)

    async def replace_result(self, attempt_id: str, result: work_pb2.AttemptResult) -> None:
        """Put another result in the place of a finished attempt's, and forget its output."""
        fill_lengths(result, {})
        row = (result.SerializeToString(), attempt_id)

        def operation(db: sqlite3.Connection) -> None:
            db.execute("UPDATE attempts SET result = ? WHERE attempt_id = ?", row)
            db.execute("DELETE FROM output WHERE attempt_id = ?", (attempt_id,))

        await self._writer.run(operation, Worth.RESERVE)

    async def forget(self, attempt_id: str) -> None:
        """Remove an attempt whose result was acknowledged."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM attempts WHERE attempt_id = ?", (attempt_id,))
            db.execute("DELETE FROM output WHERE attempt_id = ?", (attempt_id,))

        await self._writer.run(operation, Worth.RESERVE)
        self._index.remove(attempt_id)

    def entries(self) -> Sequence[JournalEntry]:
        """Return every attempt that is journalled and not forgotten, oldest first."""
        return [JournalEntry(*attempt) for attempt in self._index.durable()]

    def state(self, attempt_id: str) -> AttemptState | None:
        """Return an attempt's state, or None."""
        return self._index.state(attempt_id)

    async def assignment(self, attempt_id: str) -> agent_service_pb2.Assignment:
        """Return the assignment of an attempt. Raises KeyError."""
        blob = await self._writer.run(lambda db: _one_blob(db, "assignment", attempt_id))
        return agent_service_pb2.Assignment.FromString(blob)

    async def result(self, attempt_id: str) -> work_pb2.AttemptResult:
        """Return the result of a finished attempt. Raises KeyError."""
        blob = await self._writer.run(lambda db: _one_blob(db, "result", attempt_id))
        try:
            return work_pb2.AttemptResult.FromString(blob)
        except DecodeError:
            log.error("journal: the result of attempt %s is damaged", attempt_id)
            return schema.interrupted("the journal's record of the result is damaged", None, time.time())

    async def read_output(self, attempt_id: str, after: int, limit: int) -> Sequence[OutputRecord]:
        """Return up to ``limit`` records with an ordinal of at least ``after``."""
        statement = (
            "SELECT ordinal, stream, first_byte, data FROM output "
            "WHERE attempt_id = ? AND ordinal >= ? ORDER BY ordinal LIMIT ?"
        )
        rows = await self._writer.run(lambda db: db.execute(statement, (attempt_id, after, limit)).fetchall())
        return [OutputRecord(*row) for row in rows]

    async def append_points(self, points: Sequence[work_pb2.TelemetryPoint]) -> int:
        """Queue telemetry; returns how many points were dropped since the last call."""
        first = self._last_sequence + 1
        self._last_sequence += len(points)
        rows = [(first + at, point.SerializeToString()) for at, point in enumerate(points)]
        last = self._last_sequence
        most = self._max_points

        def operation(db: sqlite3.Connection) -> tuple[int, int]:
            db.executemany("INSERT INTO points VALUES (?, ?)", rows)
            db.execute("UPDATE meta SET last_sequence = max(last_sequence, ?)", (last,))
            count = _count_points(db)
            if count > most:
                db.execute(_DROP_OLDEST, (count - most,))
            return min(count, most), max(0, count - most)

        dropped = len(points)
        try:
            self._queued, dropped = await self._writer.run(operation, Worth.TELEMETRY)
        except JournalFullError:
            # Their numbers stay theirs, and are declared as lost with the next points.
            self._queued = await self._writer.run(_count_points)
        shed_before, self._shed_told = self._shed_told, self._writer.shed_points
        return dropped + self._shed_told - shed_before

    async def read_points(self, after: int, limit: int, max_bytes: int) -> PointRange:
        """Return up to ``limit`` points numbered above ``after``, of at most ``max_bytes`` together."""
        found = await self._writer.run(lambda db: _read_points(db, after, limit, max_bytes))
        if found.points:
            self._sent.read(found.first_sequence + len(found.points) - 1)
        return found

    @property
    def points_epoch(self) -> int:
        """Greatest epoch of a session that began to send points; 0 where none of this process did."""
        return self._sent.epoch

    async def resume_points(self, epoch: int, last_sequence: int, previous: int | None) -> int:
        """Go on in the session of ``epoch`` where the server stands."""
        before = replace(self._sent)
        self._sent.resume(epoch, last_sequence, previous)
        if last_sequence <= self._sent.up_to:
            return await self.acknowledge_points(last_sequence)
        try:
            return await self._settle(last_sequence)
        except JournalFullError:
            # As if it had not been answered: the next session names the same one again. Numbers that were
            # given meanwhile leave a gap, which is declared.
            self._sent = before
            raise

    async def acknowledge_points(self, last_sequence: int) -> int:
        """Forget the points up to ``last_sequence`` that may have been sent, and move others behind it."""
        try:
            return await self._settle(last_sequence)
        except JournalFullError:
            return 0

    async def _settle(self, last_sequence: int) -> int:
        sent = self._sent.up_to
        shift = self._sent.acknowledge(last_sequence)
        self._last_sequence += shift
        last_given = self._last_sequence

        def operation(db: sqlite3.Connection) -> tuple[int, int]:
            if shift:
                # By way of negative numbers: one that is moved must not meet one that is about to be.
                db.execute("UPDATE points SET sequence = -(sequence + ?) WHERE sequence > ?", (shift, sent))
                db.execute("UPDATE points SET sequence = -sequence WHERE sequence < 0")
            db.execute("UPDATE meta SET last_sequence = max(last_sequence, ?)", (last_given,))
            forgotten = db.execute("DELETE FROM points WHERE sequence <= ?", (last_sequence,)).rowcount
            return forgotten, _count_points(db)

        count, self._queued = await self._writer.run(operation, Worth.RESERVE)
        return count

    async def drop_points(self, sequences: Sequence[int]) -> int:
        """Give up points that the server refused; returns how many of them were queued."""

        def operation(db: sqlite3.Connection) -> tuple[int, int]:
            before = db.total_changes
            db.executemany("DELETE FROM points WHERE sequence = ?", [(one,) for one in sequences])
            return db.total_changes - before, _count_points(db)

        count, self._queued = await self._writer.run(operation, Worth.RESERVE)
        return count

    @property
    def queued_points(self) -> int:
        """How many points wait to be acknowledged."""
        return self._queued

    @property
    def unreported(self) -> int:
        """How many attempts it holds, those that are just being journalled included."""
        return len(self._index)

    async def close(self) -> None:
        """Commit what is pending and close the file."""
        await self._writer.close()


_SHED_AT_LEAST = 1000
"""Points that are given up at once for want of room, where there are so many."""

# A write as long as what a disk that is nearly full would not take, in a place that no attempt has.
_TRY = "INSERT OR REPLACE INTO output VALUES ('', 0, 1, 0, zeroblob(?))"
_TRY_BYTES = 256 << 10
_END_TRY = "DELETE FROM output WHERE attempt_id = ''"
_DROP_OLDEST = "DELETE FROM points WHERE sequence IN (SELECT sequence FROM points ORDER BY sequence LIMIT ?)"


def _nothing() -> None:
    """Stand for a listener where nobody listens."""


def _count_points(db: sqlite3.Connection) -> int:
    count: int = db.execute("SELECT count(*) FROM points").fetchone()[0]
    return count


def _append_output(db: sqlite3.Connection, attempt_id: str, stream: int, data: bytes) -> None:
    ordinal = db.execute(
        "SELECT coalesce(max(ordinal) + 1, 0) FROM output WHERE attempt_id = ?", (attempt_id,)
    ).fetchone()[0]
    offset = db.execute(
        "SELECT first_byte + length(data) FROM output WHERE attempt_id = ? AND stream = ? "
        "ORDER BY ordinal DESC LIMIT 1",
        (attempt_id, stream),
    ).fetchone()
    position = offset[0] if offset else 0
    for piece in cut(data):
        db.execute(
            "INSERT INTO output VALUES (?, ?, ?, ?, ?)", (attempt_id, ordinal, stream, position, piece)
        )
        ordinal += 1
        position += len(piece)


def _read_points(db: sqlite3.Connection, after: int, limit: int, max_bytes: int) -> PointRange:
    first = after + 1
    points: list[bytes] = []
    size = 0
    rows = db.execute(
        "SELECT sequence, point FROM points WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
    )
    for sequence, point in rows:
        size += len(point)
        if points and (size > max_bytes or sequence != first + len(points)):
            break
        if not points:
            first = sequence
        points.append(point)
    return PointRange(first, points)


_BLOBS = {
    "assignment": "SELECT assignment FROM attempts WHERE attempt_id = ?",
    "result": "SELECT result FROM attempts WHERE attempt_id = ?",
}


def _one_blob(db: sqlite3.Connection, column: str, attempt_id: str) -> bytes:
    row = db.execute(_BLOBS[column], (attempt_id,)).fetchone()
    if row is None or row[0] is None:
        raise KeyError(attempt_id)
    return bytes(row[0])
