"""One suite for both journals, and what only the one on disk can do."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.protocol.errors import JournalError, JournalFullError
from agent_sim.protocol.journal import Journal, MemoryJournal, SQLiteJournal
from agent_sim.protocol.rules import Admission, AttemptState

SUCCEEDED = work_pb2.OUTCOME_SUCCEEDED
STDOUT, STDERR = work_pb2.OUTPUT_STREAM_STDOUT, work_pb2.OUTPUT_STREAM_STDERR


def assignment(attempt_id: str, task: str = "") -> agent_service_pb2.Assignment:
    return agent_service_pb2.Assignment(attempt_id=attempt_id, task=task or f"tasks/{attempt_id}", number=1)


def points(*values: float) -> list[work_pb2.TelemetryPoint]:
    return [work_pb2.TelemetryPoint(metric="test.value_count", value=value) for value in values]


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    made: Journal = (
        MemoryJournal(max_attempts=3, max_points=4)
        if request.param == "memory"
        else SQLiteJournal(tmp_path / "journal.db", max_attempts=3, max_points=4)
    )
    yield made
    await made.close()


async def test_an_attempt_goes_from_journalled_to_forgotten(journal: Journal) -> None:
    assert await journal.add(assignment("a")) is Admission.NEW
    assert journal.state("a") is AttemptState.JOURNALED
    await journal.start("a")
    assert journal.state("a") is AttemptState.RUNNING
    await journal.finish("a", work_pb2.AttemptResult(outcome=SUCCEEDED))
    assert [entry.state for entry in journal.entries()] == [AttemptState.FINISHED]
    assert (await journal.result("a")).outcome == SUCCEEDED
    assert (await journal.assignment("a")).task == "tasks/a"
    await journal.forget("a")
    assert (journal.entries(), journal.unreported) == ([], 0)


async def test_a_full_journal_takes_no_more(journal: Journal) -> None:
    answers = [await journal.add(assignment(name)) for name in "abcd"]
    assert answers == [Admission.NEW] * 3 + [Admission.FULL]


async def test_output_is_cut_numbered_and_counted(journal: Journal) -> None:
    await journal.add(assignment("a"))
    await journal.start("a")
    await journal.append_output("a", STDOUT, b"x" * 70000)
    await journal.append_output("a", STDERR, b"oops")
    await journal.append_output("a", STDOUT, b"end")
    records = await journal.read_output("a", 0, 10)
    assert [(one.ordinal, one.stream, one.offset, len(one.data)) for one in records] == [
        (0, STDOUT, 0, 65536),
        (1, STDOUT, 65536, 4464),
        (2, STDERR, 0, 4),
        (3, STDOUT, 70000, 3),
    ]
    assert [one.ordinal for one in await journal.read_output("a", 1, 2)] == [1, 2]
    await journal.finish("a", work_pb2.AttemptResult(outcome=SUCCEEDED))
    result = await journal.result("a")
    assert (result.stdout_bytes, result.stderr_bytes, result.log_bytes) == (70003, 4, 0)


async def test_a_full_queue_gives_up_its_oldest_points_and_never_a_result(journal: Journal) -> None:
    await journal.add(assignment("a"))
    await journal.finish("a", work_pb2.AttemptResult(outcome=SUCCEEDED))
    assert await journal.append_points(points(1, 2, 3)) == 0
    assert await journal.append_points(points(4, 5, 6)) == 2
    found = await journal.read_points(0, 10, 1 << 20)
    assert (found.first_sequence, len(found.points), journal.queued_points) == (3, 4, 4)
    assert journal.state("a") is AttemptState.FINISHED


async def test_more_points_at_once_than_the_queue_holds_leave_the_newest(journal: Journal) -> None:
    assert await journal.append_points(points(*range(10))) == 6
    found = await journal.read_points(0, 10, 1 << 20)
    assert (found.first_sequence, journal.queued_points) == (7, 4)


async def test_points_are_read_within_count_and_bytes(journal: Journal) -> None:
    await journal.append_points(points(1, 2, 3, 4))
    size = len((await journal.read_points(0, 1, 1)).points[0])
    assert len((await journal.read_points(0, 2, 1 << 20)).points) == 2
    assert len((await journal.read_points(0, 10, size * 3)).points) == 3
    assert (await journal.read_points(2, 10, 1 << 20)).first_sequence == 3
    assert (await journal.read_points(4, 10, 1 << 20)).points == []


async def test_acknowledged_points_are_forgotten(journal: Journal) -> None:
    await journal.append_points(points(1, 2, 3))
    await journal.read_points(0, 3, 1 << 20)
    assert [await journal.acknowledge_points(last) for last in (2, 2, 3)] == [2, 0, 1]
    await journal.append_points(points(4))
    assert (await journal.read_points(0, 10, 1 << 20)).first_sequence == 4


async def test_numbering_goes_on_behind_what_the_server_knows(journal: Journal) -> None:
    await journal.append_points(points(1, 2, 3))
    await journal.read_points(0, 1, 1 << 20)
    assert await journal.acknowledge_points(50) == 1, "the one that may have been sent"
    await journal.append_points(points(4))
    moved = await journal.read_points(0, 10, 1 << 20)
    assert (moved.first_sequence, moved.points) == (
        51,
        [point.SerializeToString() for point in points(2, 3, 4)],
    )
    assert await journal.acknowledge_points(53) == 3
    assert journal.queued_points == 0


async def test_points_whose_numbers_a_copy_has_used_are_kept_and_get_others(journal: Journal) -> None:
    assert journal.points_epoch == 0
    await journal.append_points(points(1, 2, 3))
    assert await journal.resume_points(5, 0, None) == 0
    await journal.read_points(0, 3, 1 << 20)
    assert await journal.resume_points(7, 50, 1) == 1, "the one that the session of epoch 5 stored"
    assert (journal.points_epoch, journal.queued_points) == (7, 2)
    moved = await journal.read_points(0, 10, 1 << 20)
    assert (moved.first_sequence, moved.points) == (
        51,
        [point.SerializeToString() for point in points(2, 3)],
    )
    assert await journal.resume_points(8, 51, 51) == 1
    assert (await journal.read_points(0, 10, 1 << 20)).first_sequence == 52


async def test_points_that_had_to_move_twice_leave_no_gap(journal: Journal) -> None:
    await journal.append_points(points(1, 2))
    await journal.resume_points(5, 0, None)
    await journal.read_points(0, 2, 1 << 20)
    # The session was replaced, and its gateway has not heard: what is sent now is refused again.
    await journal.resume_points(5, 50, 0)
    await journal.read_points(50, 2, 1 << 20)
    await journal.resume_points(7, 80, 0)
    assert (await journal.read_points(80, 2, 1 << 20)).first_sequence == 81


async def test_a_late_answer_to_an_older_session_moves_nothing(journal: Journal) -> None:
    await journal.append_points(points(1, 2))
    await journal.resume_points(7, 0, None)
    await journal.read_points(0, 2, 1 << 20)
    assert await journal.resume_points(5, 2, 0) == 2, "session 7 has stored them"
    assert (journal.points_epoch, journal.queued_points) == (7, 0)


async def test_a_batch_that_is_committed_after_its_stream_is_not_sent_again(journal: Journal) -> None:
    await journal.append_points(points(1, 2, 3))
    await journal.resume_points(5, 0, None)
    await journal.read_points(0, 3, 1 << 20)
    await journal.resume_points(5, 1, 1)
    await journal.read_points(1, 1, 1 << 20)
    assert await journal.acknowledge_points(3) == 2
    assert journal.queued_points == 0


async def test_what_an_earlier_process_queued_may_have_been_sent(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = SQLiteJournal(path)
    await first.append_points(points(1, 2))
    await first.close()
    second = SQLiteJournal(path)
    await second.append_points(points(3))
    assert await second.acknowledge_points(9) == 2
    assert (await second.read_points(0, 10, 1 << 20)).first_sequence == 10
    await second.close()


async def test_a_journal_on_disk_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = SQLiteJournal(path)
    await first.store_nonce(b"n" * 16)
    for name in ("waits", "runs", "done"):
        await first.add(assignment(name))
    await first.start("runs")
    await first.append_output("runs", STDOUT, b"half")
    await first.finish("done", work_pb2.AttemptResult(outcome=SUCCEEDED))
    await first.append_points(points(1, 2))
    await first.close()
    assert path.stat().st_mode & 0o077 == 0

    second = SQLiteJournal(path)
    assert (second.journal_id, second.nonce) == (first.journal_id, b"n" * 16)
    assert second.boot_id != first.boot_id
    states = {entry.attempt_id: entry.state for entry in second.entries()}
    assert states == {
        "waits": AttemptState.JOURNALED,
        "runs": AttemptState.FINISHED,
        "done": AttemptState.FINISHED,
    }
    result = await second.result("runs")
    assert (result.outcome, result.stdout_bytes) == (work_pb2.OUTCOME_INTERRUPTED, 4)
    assert result.HasField("start_time")
    assert await second.add(assignment("runs")) is Admission.KNOWN
    await second.append_points(points(3))
    assert len((await second.read_points(0, 10, 1 << 20)).points) == 3
    await second.close()


async def test_numbers_are_not_given_twice_after_everything_was_acknowledged(tmp_path: Path) -> None:
    first = SQLiteJournal(tmp_path / "journal.db")
    await first.append_points(points(1, 2))
    await first.acknowledge_points(2)
    await first.close()
    second = SQLiteJournal(tmp_path / "journal.db")
    await second.append_points(points(3))
    assert (await second.read_points(0, 10, 1 << 20)).first_sequence == 3
    await second.close()


async def test_a_corrupt_journal_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is no database" * 100)
    with caplog.at_level(logging.ERROR):
        journal = SQLiteJournal(path)
    assert "is corrupt" in caplog.text
    assert _set_aside(tmp_path) == [b"this is"]
    assert await journal.add(assignment("a")) is Admission.NEW
    await journal.close()


def _set_aside(folder: Path) -> list[bytes]:
    return [name.read_bytes()[:7] for name in folder.glob("journal.db.corrupt-*")]


def test_a_journal_of_a_newer_program_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalError, match="schema 99 is newer than 1"):
        SQLiteJournal(path)
    assert list(tmp_path.glob("*.corrupt-*")) == []


async def test_a_second_agent_on_the_same_journal_is_refused(tmp_path: Path) -> None:
    first = SQLiteJournal(tmp_path / "journal.db")
    with pytest.raises(JournalError, match="locked"):
        SQLiteJournal(tmp_path / "journal.db")
    await first.close()


async def test_a_journal_that_cannot_be_written_says_so_and_admits_nothing(tmp_path: Path) -> None:
    journal = SQLiteJournal(tmp_path / "journal.db")
    await journal._writer.run(lambda db: db.execute("PRAGMA query_only = ON") and None)
    with pytest.raises(JournalError, match="check its disk"):
        await journal.add(assignment("a"))
    assert (journal.state("a"), journal.unreported) == (None, 0)
    await journal.close()


async def test_points_that_have_no_room_to_move_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SQLiteJournal(tmp_path / "journal.db")
    await journal.append_points(points(1, 2))
    await journal.resume_points(5, 0, None)
    await journal.read_points(0, 2, 1 << 20)

    async def full(*_: object) -> None:
        raise JournalFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(journal._writer, "run", full)
        with pytest.raises(JournalFullError):
            await journal.resume_points(7, 50, 0)
    assert journal.points_epoch == 5, "the next stream names it again"
    assert await journal.resume_points(8, 60, 0) == 0
    found = await journal.read_points(60, 10, 1 << 20)
    assert [work_pb2.TelemetryPoint.FromString(point).value for point in found.points] == [1.0, 2.0]
    await journal.close()
