"""Damaged journals: set aside, never silent, and never the end of the agent where a new one can be begun."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.protocol.errors import JournalError
from agent_sim.protocol.journal import SQLiteJournal
from agent_sim.protocol.rules import Admission, AttemptState

NONCE = b"n" * 16


def assignment(attempt_id: str) -> agent_service_pb2.Assignment:
    return agent_service_pb2.Assignment(attempt_id=attempt_id, task=f"tasks/{attempt_id}", number=1)


async def used_journal(path: Path) -> str:
    """Make a journal with something in it, closed; return its id."""
    journal = SQLiteJournal(path, reserve_bytes=0)
    await journal.store_nonce(NONCE)
    for number in range(200):
        await journal.add(assignment(f"a{number}"))
    await journal.close()
    return journal.journal_id


def garbage(path: Path) -> None:
    path.write_bytes(b"\xa5" * 8_192)


def no_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def cut_to(size: int) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(size)

    return cut


def page_of_noise(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\x5a" * 4096)


def sql(text: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        database = sqlite3.connect(path)
        database.executescript(text)
        database.close()

    return run


def another_database(path: Path) -> None:
    path.unlink()
    sql("CREATE TABLE meta (x)")(path)


def set_aside(folder: Path) -> list[Path]:
    return list(folder.glob("journal.db.corrupt-*"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "garbage": garbage,
    "no header": no_header,
    "cut within a page": cut_to(5_000),
    "cut between pages": cut_to(8_192),
    "a header and nothing else": cut_to(100),
    "a page of noise": page_of_noise,
    "tables that are missing": sql("DROP TABLE points"),
    "no version": sql("PRAGMA user_version = 0"),
    "a version below all": sql("PRAGMA user_version = -1"),
    "another program's database": another_database,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_journal_is_set_aside_aloud_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "journal.db"
    before = await used_journal(path)
    DAMAGES[damage](path)
    with caplog.at_level(logging.ERROR):
        journal = SQLiteJournal(path, reserve_bytes=0)
    # Another id tells the server that what it handed out is lost here: it ends that as INTERRUPTED.
    assert journal.journal_id != before
    assert journal.entries() == []
    assert "set aside" in caplog.text
    assert len(set_aside(tmp_path)) == journal.set_aside == 1
    assert await journal.add(assignment("again")) is Admission.NEW
    await journal.close()


async def test_the_nonce_of_a_damaged_journal_is_kept_where_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await used_journal(path)
    sql("DROP TABLE points")(path)
    journal = SQLiteJournal(path, reserve_bytes=0)
    # Without it the server would take this agent for a copy of itself.
    assert journal.nonce == NONCE
    await journal.close()
    again = SQLiteJournal(path, reserve_bytes=0)
    assert (again.journal_id, again.nonce) == (journal.journal_id, NONCE)
    await again.close()


@pytest.mark.parametrize("content", [b"", b"no log at all", bytes(65536)])
async def test_a_log_that_says_nothing_loses_nothing_that_was_written_back(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "journal.db"
    before = await used_journal(path)
    path.with_name("journal.db-wal").write_bytes(content)
    journal = SQLiteJournal(path, reserve_bytes=0)
    assert (journal.journal_id, journal.unreported) == (before, 200)
    await journal.close()


async def test_a_log_that_was_cut_loses_what_was_behind_the_cut_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SQLiteJournal(path, reserve_bytes=0)
    for number in range(20):
        await journal.add(assignment(f"a{number}"))
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    await journal.close()
    wal = copy.with_name("copy.db-wal")
    cut_to(wal.stat().st_size // 2)(wal)
    torn = SQLiteJournal(copy, reserve_bytes=0)
    names = [entry.attempt_id for entry in torn.entries()]
    assert names == [f"a{number}" for number in range(len(names))]
    assert 0 < len(names) < 20
    await torn.close()


async def test_a_record_that_cannot_be_read_ends_as_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SQLiteJournal(path, reserve_bytes=0)
    await journal.add(assignment("a"))
    await journal.finish("a", work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED))
    await journal._writer.run(lambda db: db.execute("UPDATE attempts SET result = x'ffff'") and None)
    found = await journal.result("a")
    assert found.outcome == work_pb2.OUTCOME_INTERRUPTED
    assert "damaged" in found.reason
    await journal.close()


async def test_an_assignment_that_cannot_be_read_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SQLiteJournal(path, reserve_bytes=0)
    await journal.add(assignment("a"))
    await journal._writer.run(lambda db: db.execute("UPDATE attempts SET assignment = x'ffff'") and None)
    await journal.close()
    again = SQLiteJournal(path, reserve_bytes=0)
    assert [entry.state for entry in again.entries()] == [AttemptState.FINISHED]
    assert (await again.result("a")).outcome == work_pb2.OUTCOME_INTERRUPTED
    await again.close()


def test_a_journal_on_a_read_only_disk_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        with pytest.raises(JournalError, match=r"journal\.db: Read-only file system; check"):
            SQLiteJournal(folder / "journal.db")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_in_the_place_of_the_journal_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(JournalError, match=r"journal\.db: Is a directory; check"):
        SQLiteJournal(tmp_path / "journal.db")
