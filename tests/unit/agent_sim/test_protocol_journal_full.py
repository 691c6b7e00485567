"""A journal whose disk is full: nothing that counts is lost, the rest gives way and is counted."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.protocol.errors import JournalFullError
from agent_sim.protocol.journal import SQLiteJournal
from agent_sim.protocol.rules import Admission, AttemptState

SUCCEEDED = work_pb2.OUTCOME_SUCCEEDED
STDOUT = work_pb2.OUTPUT_STREAM_STDOUT
DISK, RESERVE = 8 << 20, 2 << 20


def assignment(attempt_id: str) -> agent_service_pb2.Assignment:
    return agent_service_pb2.Assignment(attempt_id=attempt_id, task=f"tasks/{attempt_id}", number=1)


def points(count: int) -> list[work_pb2.TelemetryPoint]:
    return [work_pb2.TelemetryPoint(metric="test.value_count", value=value + 1) for value in range(count)]


def result(size: int = 0) -> work_pb2.AttemptResult:
    return work_pb2.AttemptResult(outcome=SUCCEEDED, echo=work_pb2.EchoResult(payload=bytes(size)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("a file system cannot be mounted here; max_page_count is tested")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    path = disk / "filler"
    with path.open("ab", buffering=0) as filler:
        for size in (65536, 4096):
            while True:
                try:
                    if filler.write(bytes(size)) < size:
                        break
                except OSError:
                    break
    return path


@pytest_asyncio.fixture
async def journal(disk: Path) -> AsyncIterator[SQLiteJournal]:
    made = SQLiteJournal(disk / "journal.db", reserve_bytes=RESERVE)
    yield made
    await made.close()


async def test_results_are_written_on_a_full_disk_and_nothing_new_is_taken(
    journal: SQLiteJournal, disk: Path
) -> None:
    held = [f"a{number}" for number in range(8)]
    for name in held:
        assert await journal.add(assignment(name)) is Admission.NEW
    full = asyncio.Event()
    journal.when_full = full.set
    fill(disk)
    # Until the log has no more room of its own.
    taken = 0
    while await journal.add(assignment(f"late{taken}")) is Admission.NEW:
        taken += 1
    assert full.is_set()
    assert not journal.has_room
    for name in held:
        await journal.start(name)
        await journal.finish(name, result(20_000))
    assert [(await journal.result(name)).outcome for name in held] == [SUCCEEDED] * 8
    for name in held:
        await journal.forget(name)
    assert journal.unreported == taken
    assert await journal.add(assignment("one more")) is Admission.FULL


async def test_it_takes_work_again_when_there_is_room_and_has_its_reserve_back(
    journal: SQLiteJournal, disk: Path
) -> None:
    filler = fill(disk)
    while await journal.add(assignment(f"late{journal.unreported}")) is Admission.NEW:
        pass
    waiting = [entry.attempt_id for entry in journal.entries()]
    for name in waiting:
        await journal.finish(name, result(8_000))
    share = journal.reserve_share
    assert not await journal.recover()
    filler.unlink()
    assert await journal.recover()
    assert (journal.has_room, journal.reserve_share) == (True, 1.0)
    assert share <= 1.0
    assert await journal.add(assignment("again")) is Admission.NEW


async def test_the_oldest_telemetry_gives_way_and_is_counted(journal: SQLiteJournal, disk: Path) -> None:
    dropped = await journal.append_points(points(20_000))
    appended = 20_000
    fill(disk)
    # What the log still holds, and what is free inside the file, is used up first.
    while dropped == 0:
        dropped += await journal.append_points(points(1_000))
        appended += 1_000
    for _ in range(5):
        dropped += await journal.append_points(points(1_000))
        appended += 1_000
    assert journal.queued_points == appended - dropped
    assert journal.queued_points > 0
    newest = await journal.read_points(appended - 1, 10, 1 << 20)
    oldest = await journal.read_points(0, 10, 1 << 20)
    assert oldest.first_sequence > 1
    assert newest.points == [] or newest.first_sequence == appended


async def test_results_are_never_given_up_for_telemetry(journal: SQLiteJournal, disk: Path) -> None:
    names = [f"a{number}" for number in range(20)]
    for name in names:
        await journal.add(assignment(name))
        await journal.finish(name, result(1_000))
    await journal.append_points(points(5_000))
    fill(disk)
    for _ in range(100):
        await journal.append_points(points(500))
    assert [entry.state for entry in journal.entries()] == [AttemptState.FINISHED] * 20
    for name in names:
        assert (await journal.result(name)).echo.payload == bytes(1_000)


async def test_output_without_room_is_refused_once_telemetry_has_given_way(
    journal: SQLiteJournal, disk: Path
) -> None:
    await journal.add(assignment("a"))
    await journal.start("a")
    await journal.append_points(points(2_000))
    fill(disk)

    async def write_on() -> None:
        for _ in range(1_000):
            await journal.append_output("a", STDOUT, bytes(65536))

    with pytest.raises(JournalFullError):
        await write_on()
    # Counted with the next call, whatever becomes of the points in it.
    assert await journal.append_points(points(1)) >= 2_000
    await journal.finish("a", result())
    assert (await journal.result("a")).stdout_bytes % 65536 == 0


async def test_a_result_that_is_larger_than_all_that_is_left_says_so(
    journal: SQLiteJournal, disk: Path
) -> None:
    await journal.add(assignment("a"))
    fill(disk)
    with pytest.raises(JournalFullError):
        await journal.finish("a", result(3 << 20))
    assert journal.state("a") is AttemptState.JOURNALED


async def test_a_nonce_without_room_leaves_the_former_one_to_be_shown(
    journal: SQLiteJournal, disk: Path
) -> None:
    await journal.store_nonce(b"first")
    fill(disk)
    for number in range(3_000):
        await journal.store_nonce(b"%04d" % number)
        assert journal.nonce == b"%04d" % number, "the reserve is there for it"


async def test_a_journal_is_opened_on_a_full_disk_and_says_what_was_interrupted(disk: Path) -> None:
    first = SQLiteJournal(disk / "journal.db", reserve_bytes=RESERVE)
    for number in range(50):
        await first.add(assignment(f"a{number}"))
        await first.start(f"a{number}")
    await first.close()
    fill(disk)
    second = SQLiteJournal(disk / "journal.db", reserve_bytes=RESERVE)
    assert [entry.state for entry in second.entries()] == [AttemptState.FINISHED] * 50
    assert not second.has_room
    await second.close()


async def test_a_disk_that_never_had_room_for_the_reserve_takes_no_work(disk: Path) -> None:
    (disk / "filler").write_bytes(bytes(DISK - (1 << 20)))
    journal = SQLiteJournal(disk / "journal.db", reserve_bytes=RESERVE)
    assert (journal.has_room, journal.reserve_share < 1) == (False, True)
    assert await journal.add(assignment("a")) is Admission.FULL
    (disk / "filler").unlink()
    assert await journal.recover()
    assert await journal.add(assignment("a")) is Admission.NEW
    await journal.close()


async def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    journal = SQLiteJournal(tmp_path / "journal.db", reserve_bytes=RESERVE)
    await journal.append_points(points(3_000))
    await journal.add(assignment("held"))
    limit = await journal._writer.run(
        lambda db: db.execute(f"PRAGMA max_page_count = {_pages(db) + 2}").fetchone()[0]
    )
    taken = 0
    while await journal.add(assignment(f"a{taken}")) is Admission.NEW:
        taken += 1
    assert not journal.has_room
    await journal.finish("held", result(30_000))
    assert (await journal.result("held")).echo.payload == bytes(30_000)
    assert await journal._writer.run(_pages) <= limit
    assert await journal.append_points(points(1)) >= 1_000, "telemetry made the room"
    assert (journal.unreported, not journal.has_room) == (taken + 1, True)
    await journal._writer.run(lambda db: db.execute("PRAGMA max_page_count = 100000") and None)
    assert await journal.recover()
    await journal.close()


def _pages(db: object) -> int:
    count: int = db.execute("PRAGMA page_count").fetchone()[0]  # type: ignore[attr-defined]
    return count
