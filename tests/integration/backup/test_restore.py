"""Putting a backup in place: into a new folder, over an old one, and through kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.failpoints import NAMES
from controlplane.preflight import FolderLock
from controlplane.storage.backup import restoring, taking
from controlplane.storage.backup.errors import BackupError
from controlplane.trust.adoption import ADOPTION_FILE, Adoption, load_adoption
from tests.integration.backup import archives
from tests.integration.backup.commands import command
from tests.integration.backup.conftest import NOON, Content
from tests.support.folders import make_folder, tables
from tests.support.process import running

DATABASE = "fleetwright.db"


def change(folder: Path, value: int) -> None:
    """Leave a mark in a folder's database, in its log alone, as a server that was killed does."""
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("UPDATE commit_counter SET value = ?", (value,))
    connection.commit()
    os.link(folder / f"{DATABASE}-wal", folder / "kept")
    connection.close()
    (folder / "kept").replace(folder / f"{DATABASE}-wal")


def mark(folder: Path) -> int:
    with closing(sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT value FROM commit_counter").fetchone()[0])


def kept(content: Content) -> Content:
    """Return what stands in a folder apart from what only restores leave there."""
    return {name: digest for name, digest in content.items() if not name.startswith((".restore", "replaced"))}


def test_a_restored_folder_has_every_file_and_its_mode(
    folder: Path, good: Path, tmp_path: Path, content: Callable[[Path], Content]
) -> None:
    new = tmp_path / "deep" / "new"
    restored = restoring.restore(new, good, now=NOON)
    assert restored.aside is None
    assert tables(new) == tables(folder)
    before, after = content(folder), content(new)
    del before[DATABASE], after[DATABASE]
    assert after == before
    assert (new / DATABASE).stat().st_mode & 0o777 == 0o600
    assert new.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("left", [DATABASE, f"{DATABASE}-wal", "trust", "identities"])
def test_a_folder_that_has_something_is_refused_and_stays(
    left: str, folder: Path, good: Path, content: Callable[[Path], Content]
) -> None:
    change(folder, 7)
    for name in {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "trust", "identities"} - {left}:
        (folder / name).rename(folder / f"elsewhere-{name}") if (folder / name).exists() else None
    before = content(folder)
    with pytest.raises(
        BackupError, match="already; choose another folder, or set what is there aside"
    ) as error:
        restoring.restore(folder, good, now=NOON)
    assert left.removesuffix("-wal") in str(error.value)
    assert content(folder) == before


def test_force_sets_aside_what_was_there_with_its_log(
    folder: Path, good: Path, content: Callable[[Path], Content]
) -> None:
    change(folder, 4711)
    before = content(folder)
    restored = restoring.restore(folder, good, now=NOON, force=True)
    assert restored.aside == folder / "replaced-20261123T120000Z"
    assert mark(folder) == 0
    assert content(restored.aside) == before
    assert mark(restored.aside) == 4711


def test_a_second_restore_sets_aside_beside_the_first(folder: Path, good: Path) -> None:
    asides = [restoring.restore(folder, good, now=NOON, force=True).aside for _ in range(3)]
    names = [aside.name for aside in asides if aside is not None]
    assert names == [f"replaced-20261123T120000Z{suffix}" for suffix in ("", "-2", "-3")]


def test_a_folder_in_use_is_refused_even_with_force(
    folder: Path, good: Path, content: Callable[[Path], Content]
) -> None:
    before = content(folder)
    with (
        FolderLock(folder),
        pytest.raises(BackupError, match=f"a server uses it .process {os.getpid()}.; stop"),
    ):
        restoring.restore(folder, good, now=NOON, force=True)
    assert content(folder) == before


def test_a_backup_without_keys_has_none_and_is_put_beside_its_own(folder: Path, tmp_path: Path) -> None:
    taken = taking.take(folder, tmp_path / "b.tar", product="1", now=NOON, keys=False)
    assert [entry.name for entry in taken.manifest.entries] == [DATABASE]
    trust = {path.name: path.read_bytes() for path in (folder / "trust").iterdir()}
    assert all(key not in taken.path.read_bytes() for name, key in trust.items() if name.endswith(".key"))
    change(folder, 5)
    restoring.restore(folder, taken.path, now=NOON, force=True)
    assert mark(folder) == 0
    assert {path.name: path.read_bytes() for path in (folder / "trust").iterdir()} == trust


def test_a_backup_without_keys_is_not_put_beside_those_of_another_installation(
    folder: Path, tmp_path: Path
) -> None:
    taken = taking.take(folder, tmp_path / "b.tar", product="1", now=NOON, keys=False)
    other = make_folder(tmp_path / "other")
    with pytest.raises(BackupError, match="from an installation with other roots"):
        restoring.restore(other, taken.path, now=NOON, force=True)


POINTS = {
    "restore.before_commit": (1, False),
    "restore.after_commit": (1, True),
    # trust, identities, and the database, each between setting aside and moving in.
    "restore.between_moves": (1, True),
    "restore.between_moves ": (2, True),
    "restore.between_moves  ": (3, True),
}


def test_every_failpoint_of_a_restore_is_tried() -> None:
    assert {point.strip() for point in POINTS} == {name for name in NAMES if name.startswith("restore.")}


def killed(folder: Path, good: Path, point: str) -> None:
    """Restore over ``folder`` in a process that is killed at ``point``."""
    failpoint = f"{point.strip()}=kill@{POINTS[point][0]}"
    status, _, _ = command("restore", good, "--data-dir", folder, "--force", FLEETWRIGHT_FAILPOINTS=failpoint)
    assert status == -signal.SIGKILL


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_restore_has_changed_nothing_or_is_finished_by_the_next_one(
    point: str, folder: Path, good: Path, content: Callable[[Path], Content]
) -> None:
    change(folder, 4711)
    before = content(folder)
    killed(folder, good, point)
    if not POINTS[point][1]:
        assert kept(content(folder)) == before
    restored = restoring.restore(folder, good, now=NOON, force=True)
    assert restored.finished_earlier is POINTS[point][1]
    assert mark(folder) == 0
    assert not list(folder.glob(".restore*"))
    assert before in [content(aside) for aside in folder.glob("replaced-*")]


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_restore_has_changed_nothing_or_is_finished_by_the_next_start(
    point: str, folder: Path, good: Path
) -> None:
    change(folder, 4711)
    killed(folder, good, point)
    async with running(folder) as server:
        finished = [line for line in server.log if line["event"] == "an interrupted restore was finished"]
        assert len(finished) == POINTS[point][1]
        assert await server.terminate() == 0
    # A start of the server numbers no commit of its own here.
    assert mark(folder) == (0 if POINTS[point][1] else 4711)
    assert (folder / ".restore").exists() is False


async def test_a_restore_into_a_new_folder_that_was_killed_is_finished_by_the_first_start(
    good: Path, folder: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    killed(new, good, "restore.between_moves")
    assert not (new / "trust").exists()
    async with running(new) as server:
        await server.terminate()
    # What a start itself writes.
    own = ["commit_counter", "processes", "schedules"]
    assert tables(new, own) == tables(folder, own)


DAY = timedelta(days=1)


def test_a_leave_to_adopt_certificates_comes_with_its_restore_and_goes_with_the_next(
    folder: Path, good: Path
) -> None:
    restored = restoring.restore(folder, good, now=NOON + DAY, force=True, adopt_for=DAY)
    assert load_adoption(folder) == restored.adoption == Adoption(NOON, NOON + DAY, NOON + 2 * DAY)
    again = restoring.restore(folder, good, now=NOON + DAY, force=True, adopt_for=2 * DAY)
    assert load_adoption(folder) == again.adoption == Adoption(NOON, NOON + DAY, NOON + 3 * DAY)
    plain = restoring.restore(folder, good, now=NOON + DAY, force=True)
    assert load_adoption(folder) is plain.adoption is None
    assert plain.aside is not None
    assert load_adoption(plain.aside) == again.adoption


def test_a_leave_survives_a_kill_between_any_two_steps(folder: Path, good: Path) -> None:
    words = ("restore", good, "--data-dir", folder, "--force", "--adopt-certificates")
    for step in range(1, 5):
        restoring.restore(folder, good, now=NOON, force=True)
        failpoint = f"restore.between_moves=kill@{step}"
        assert command(*words, FLEETWRIGHT_FAILPOINTS=failpoint)[0] == -signal.SIGKILL
        assert load_adoption(folder) is None
        assert restoring.finish(folder)
        leave = load_adoption(folder)
        assert leave is not None
        assert leave.until - leave.restore_time == DAY


def test_the_command_tells_until_when_it_adopts(folder: Path, good: Path) -> None:
    words = ("restore", good, "--data-dir", folder, "--force", "--adopt-certificates")
    status, out, errors = command(*words, "-o", "json", FLEETWRIGHT_AGENT_CERTIFICATE_LIFE="1h")
    assert (status, errors) == (0, "")
    leave = load_adoption(folder)
    assert leave is not None
    assert leave.until - leave.restore_time == timedelta(hours=1)
    assert json.loads(out)["adoptsUntil"] == f"{leave.until:%Y-%m-%dT%H:%M:%SZ}"
    assert "delete and revoke again what was since the backup" in command(*words)[1]
    assert (folder / ADOPTION_FILE).exists()


def test_the_command_says_what_it_did_to_people_and_to_programs(
    folder: Path, good: Path, tmp_path: Path
) -> None:
    status, out, errors = command("restore", good, "--data-dir", tmp_path / "a")
    assert (status, errors) == (0, "")
    assert "2026-11-23 12:00:00Z" in out
    status, out, errors = command("restore", good, "--data-dir", folder, "--force", "-o", "json")
    assert (status, errors) == (0, "")
    result = json.loads(out)
    assert result["dataDir"] == str(folder)
    assert Path(result["setAside"]).is_dir()
    assert (result["keys"], result["finishedEarlier"]) == (True, False)


def test_the_command_refuses_with_one_message(folder: Path, good: Path) -> None:
    status, out, errors = command("restore", good, "--data-dir", folder)
    assert (status, out) == (1, "")
    assert errors.startswith(f"error: data folder {folder}: has trust, identities, {DATABASE} already")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda manifest: manifest.update(schema="0999"), "is from schema 0999, this program knows up to"),
        (lambda manifest: manifest.update(format=2), "has format 2, this program knows up to 1"),
        (
            lambda manifest: manifest["files"][0].update(sha256="0" * 64),
            "damaged, or no backup of Fleetwright",
        ),
    ],
)
def test_the_command_refuses_a_newer_or_damaged_backup_with_one_message(
    change: Callable[[dict[str, Any]], None], said: str, good: Path, tmp_path: Path
) -> None:
    files = archives.with_manifest(archives.files_of(good), change)
    source = archives.write(tmp_path / "bad.tar", files)
    status, out, errors = command("restore", source, "--data-dir", tmp_path / "new")
    assert (status, out, errors.count("\n")) == (1, "", 1)
    assert errors.startswith(f"error: {source}: ")
    assert said in errors
    status, out, errors = command("restore", source, "--data-dir", tmp_path / "new", "-o", "json")
    assert (status, out) == (1, "")
    assert said in json.loads(errors)["error"]["message"]
    assert not (tmp_path / "new").exists()
