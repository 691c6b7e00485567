"""Each thing of a data folder and its machine is broken for real, and the doctor's line is read."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.cli.doctor import machine
from controlplane.cli.doctor.findings import Level, run
from controlplane.storage import inspection, migrate
from controlplane.storage.inspection import CheckTooLongError
from controlplane.trust import setup
from controlplane.trust.adoption import ADOPTION_FILE, allow_adoption
from controlplane.trust.authority import new_key, private_pem
from controlplane.trust.layout import DATABASE
from tests.integration.doctor.asking import Answer, Doctor
from tests.support.process import environment

DAY = timedelta(days=1)


def made(folder: Path, at: datetime) -> Path:
    """Return a data folder that was made ``at`` some other time."""
    setup.init(folder, "fleetwright.local", [], at)
    return folder


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute(statement)


# --- the whole


def test_a_good_folder_has_no_failure_and_nothing_is_changed(doctor: Doctor, folder: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    before = content()
    answer = doctor.ask("--data-dir", folder)
    assert (answer.status, answer.failed) == (0, [])
    assert {level for _, level, _ in answer.lines} <= {"OK", "WARN", "SKIP"}
    assert answer.one("process") == (
        "WARN",
        "no server runs on this folder: start its service, or `fleetwright serve`",
    )
    assert answer.one("server") == ("SKIP", "not called, for no server runs on the data folder")
    assert content() == before


def test_people_read_lines_and_a_count(doctor: Doctor, folder: Path) -> None:
    (folder / "trust/server.key").chmod(0o644)
    status, text = doctor.words("--data-dir", folder)
    lines = text.splitlines()
    assert status == 1
    assert [line for line in lines if not line.startswith(" ")][:3] == ["machine", "data folder", "server"]
    assert [line for line in lines if line.startswith("  FAIL  ")] == [
        f"  FAIL  permissions: {folder}/trust/server.key: mode 644: others may read this key: "
        f"chmod 600 {folder}/trust/server.key"
    ]
    assert lines[-1].endswith(" 1 FAIL, 5 SKIP")


def test_without_a_folder_and_a_server_it_says_what_it_skipped(doctor: Doctor) -> None:
    answer = doctor.ask()
    assert answer.status == 0
    assert answer.one("folder")[0] == "SKIP"
    assert "fleetwright contexts add" in answer.one("server")[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_learns_as_whom_to_run_it(doctor: Doctor, folder: Path) -> None:
    folder.chmod(0o700)
    doctor.ask("--data-dir", folder)  # imports what the other user may not read
    os.seteuid(65534)
    try:
        answer = doctor.ask("--data-dir", folder)
    finally:
        os.seteuid(0)
    assert answer.status == 1
    [message] = answer.failed
    assert message.startswith(str(folder))
    assert "Permission denied: run as the user of the server" in message
    assert answer.one("server") == ("SKIP", "not called, for the data folder cannot be used")


def test_a_folder_that_was_named_and_is_not_there_fails(doctor: Doctor, tmp_path: Path) -> None:
    answer = doctor.ask("--data-dir", tmp_path / "nowhere")
    assert answer.status == 1
    assert answer.one("folder")[0] == "FAIL"
    assert "fleetwright init" in answer.one("folder")[1]


def test_a_restore_that_was_interrupted_is_told(doctor: Doctor, folder: Path) -> None:
    (folder / "trust").rename(folder / "moved")
    (folder / ".restore").mkdir()
    (folder / "moved").rename(folder / ".restore/trust")
    answer = doctor.ask("--data-dir", folder)
    assert answer.status == 0
    assert answer.one("restore")[0] == "WARN"
    assert "finishes it" in answer.one("restore")[1]


FILES = (
    "trust/agents-root.key",
    "trust/agents-root.pem",
    "trust/operators-root.key",
    "trust/operators-root.pem",
    "trust/server.key",
    "trust/server-agents.pem",
    "trust/server-operators.pem",
    "identities/operator-admin/key.pem",
    "identities/operator-admin/cert.pem",
    DATABASE,
)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)


def shortened(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [emptied, garbled, shortened, gone, a_folder])
@pytest.mark.parametrize("name", FILES)
def test_whatever_is_damaged_is_a_line_and_no_crash(
    doctor: Doctor, folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    answer = doctor.ask("--data-dir", folder)
    assert not [message for message in answer.failed if "please report" in message]
    if name == DATABASE and damage in (emptied, gone):
        assert "there is none yet" in answer.one("database")[1]
    else:
        assert answer.status == 1
        assert [message for message in answer.failed if Path(name).stem in message]


def test_a_check_that_breaks_is_a_failure_of_its_own() -> None:
    def broken() -> list[object]:
        raise KeyError("unforeseen")

    [finding] = run("disk", broken)  # type: ignore[arg-type] # it returns nothing
    assert (finding.check, finding.level) == ("disk", Level.FAIL)
    assert "KeyError: 'unforeseen'" in finding.message


# --- permissions, disk, files, ports


def test_a_wide_folder_is_a_warning(doctor: Doctor, folder: Path) -> None:
    (folder / "trust").chmod(0o755)
    answer = doctor.ask("--data-dir", folder)
    assert answer.status == 0
    assert answer.one("permissions") == (
        "WARN",
        f"{folder}/trust: mode 755: wider than needed: chmod 700 {folder}/trust",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_of_another_user_fails(doctor: Doctor, folder: Path) -> None:
    os.chown(folder / "trust/server.key", 4711, -1)
    level, message = doctor.ask("--data-dir", folder).about("4711")
    assert level == "FAIL"
    assert message.endswith(f"chown {os.geteuid()} {folder}/trust/server.key")


def test_a_full_disk_and_too_few_files_fail_with_how_much_is_needed(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))

    told = subprocess.run(
        [
            str(Path(sys.executable).with_name("fleetwright")),
            "doctor",
            "--data-dir",
            str(folder),
            "-o",
            "json",
        ],
        env=environment({}),
        preexec_fn=limit,
        capture_output=True,
        check=False,
        text=True,
    )
    assert told.stderr == ""
    answer = Answer.read(told.returncode, told.stdout)
    assert answer.status == 1
    assert answer.one("disk")[0] == "FAIL"
    assert "the disk is full (64 MiB are needed" in answer.one("disk")[1]
    assert answer.one("open files")[0] == "FAIL"
    assert "11024 are needed for 10000 agents and the limit is 600" in answer.one("open files")[1]
    assert answer.one("database")[0] == "FAIL"
    assert "look at the disk" in answer.one("database")[1]


def test_a_port_that_another_program_has_fails_with_its_process(doctor: Doctor, folder: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        doctor.set(agents_port=port)
        answer = doctor.ask("--data-dir", folder)
    [(level, message)] = [line for line in answer.of("ports") if str(port) in line[1]]
    assert level == "FAIL"
    assert "FLEETWRIGHT_AGENTS_PORT" in message
    assert f"(it is process {os.getpid()}, " in message


# --- certificates


def test_certificates_that_ended_say_how_to_get_new_ones(doctor: Doctor, tmp_path: Path) -> None:
    folder = made(tmp_path / "data", datetime.now(UTC) - 398 * DAY)
    answer = doctor.ask("--data-dir", folder)
    assert answer.status == 1
    for name in ("server-agents.pem", "server-operators.pem"):
        level, message = answer.about(name)
        assert level == "FAIL"
        assert "ended at" in message
        assert "restart the server" in message
    level, message = answer.about("operator-admin")
    assert level == "WARN"
    assert "have it issued again" in message


def test_certificates_that_end_soon_are_warnings(doctor: Doctor, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    folder = made(tmp_path / "data", now - 380 * DAY)
    setup.issue_identity(folder, "integrator", "ticketing", now - 340 * DAY)
    answer = doctor.ask("--data-dir", folder)
    assert answer.status == 0
    assert answer.about("server-agents.pem")[1].startswith("trust/server-agents.pem: 16 days left: restart")
    assert answer.about("ticketing")[1].startswith(
        "identities/integrator-ticketing/cert.pem: 24 days left: issue"
    )


def test_a_root_that_ended_fails(doctor: Doctor, tmp_path: Path) -> None:
    folder = made(tmp_path / "data", datetime.now(UTC) - 3651 * DAY)
    level, message = doctor.ask("--data-dir", folder).about("agents-root.pem")
    assert level == "FAIL"
    assert "make a new installation" in message


def test_certificates_of_the_future_ask_for_the_clock(doctor: Doctor, tmp_path: Path) -> None:
    folder = made(tmp_path / "data", datetime.now(UTC) + DAY)
    answer = doctor.ask("--data-dir", folder)
    assert answer.status == 1
    assert "is the clock right?" in answer.about("agents-root.pem")[1]


def test_a_key_of_another_certificate_fails(doctor: Doctor, folder: Path) -> None:
    (folder / "trust/server.key").write_bytes(private_pem(new_key()))
    level, message = doctor.ask("--data-dir", folder).about("trust/server-agents.pem")
    assert level == "FAIL"
    assert f"its key is not {folder}/trust/server.key" in message


def test_roots_of_another_installation_fail(doctor: Doctor, folder: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", datetime.now(UTC))
    for suffix in ("key", "pem"):
        shutil.copy(other / f"trust/operators-root.{suffix}", folder / "trust")
    answer = doctor.ask("--data-dir", folder)
    for name in ("server-operators.pem", "operator-admin"):
        level, message = answer.about(name)
        assert level == "FAIL"
        assert "operators-root did not sign it" in message
    assert ("OK", "trust/server-agents.pem: 396 days left") in answer.of("certificates")


def test_names_that_the_certificate_lacks_are_named_with_the_command(doctor: Doctor, folder: Path) -> None:
    doctor.set(hosts="fleet.example.org,localhost", advertised_agent_addresses="[2001:db8::1]:7443")
    level, message = doctor.ask("--data-dir", folder).one("names")
    assert level == "WARN"
    assert "lacks fleet.example.org, 2001:db8::1:" in message
    assert "`fleetwright add-host fleet.example.org 2001:db8::1`" in message


def test_a_leave_to_adopt_certificates_is_a_warning_and_a_damaged_one_a_failure(
    doctor: Doctor, folder: Path
) -> None:
    now = datetime.now(UTC)
    allow_adoption(folder, now - DAY, now, DAY)
    level, message = doctor.ask("--data-dir", folder).one("adoption")
    assert level == "WARN"
    assert f"until {now + DAY:%Y-%m-%d}" in message
    allow_adoption(folder, now - 3 * DAY, now - 2 * DAY, DAY)
    assert doctor.ask("--data-dir", folder).of("adoption") == []
    (folder / ADOPTION_FILE).write_text("{")
    assert doctor.ask("--data-dir", folder).one("adoption")[0] == "FAIL"


# --- the database


def test_a_damaged_page_fails(doctor: Doctor, folder: Path) -> None:
    path = folder / DATABASE
    with closing(sqlite3.connect(path)) as connection:
        [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'agents'").fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(range(256)) * (size // 256))
    answer = doctor.ask("--data-dir", folder)
    assert answer.one("schema")[0] == "OK"
    level, message = answer.one("database")
    assert level == "FAIL"
    assert "fleetwright restore" in message


def test_a_schema_of_the_future_fails_and_one_of_the_past_is_a_warning(
    doctor: Doctor, folder: Path, tmp_path: Path
) -> None:
    change(folder, "UPDATE alembic_version SET version_num = '9999'")
    level, message = doctor.ask("--data-dir", folder).one("schema")
    assert level == "FAIL"
    assert "written by a newer program" in message
    older = made(tmp_path / "older", datetime.now(UTC))
    migrate.upgrade(older / DATABASE, "0001")
    level, message = doctor.ask("--data-dir", older).one("schema")
    assert level == "WARN"
    assert message.startswith(f"0001: the next start brings it to {migrate.head()}; take a backup first")


def test_entries_of_the_future_ask_for_the_clock(doctor: Doctor, folder: Path) -> None:
    later = int((datetime.now(UTC) + DAY).timestamp()) * 1_000_000
    change(folder, f"INSERT INTO identities VALUES ('ab', 'operator', 'night', '', {later}, {later})")
    [(level, message)] = [line for line in doctor.ask("--data-dir", folder).of("clock") if line[0] != "OK"]
    assert level == "FAIL"
    assert "set the clock" in message


def test_a_long_log_is_a_warning(doctor: Doctor, folder: Path) -> None:
    with (folder / f"{DATABASE}-wal").open("wb") as file:
        file.truncate(300 << 20)
    level, message = doctor.ask("--data-dir", folder).one("log")
    assert level == "WARN"
    assert "300 MiB" in message


def test_a_database_too_large_to_be_read_in_time_is_said_to_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, doctor: Doctor
) -> None:
    monkeypatch.setattr(inspection, "_STEPS", 1)
    with pytest.raises(CheckTooLongError):
        inspection.find_damage(folder / DATABASE, timedelta())
    monkeypatch.setattr(inspection.find_damage, "__defaults__", (timedelta(),))
    level, message = doctor.ask("--data-dir", folder).one("database")
    assert level == "SKIP"
    assert "too large" in message


# --- the machine


def test_settings_that_are_wrong_or_misspelt_are_named(doctor: Doctor) -> None:
    doctor.set(max_agents="many", max_agent=7)
    answer = doctor.ask()
    assert answer.status == 1
    assert [level for level, _ in answer.of("settings")] == ["WARN", "FAIL"]
    assert "FLEETWRIGHT_MAX_AGENT:" in answer.of("settings")[0][1]
    assert "FLEETWRIGHT_MAX_AGENTS:" in answer.of("settings")[1][1]


def test_a_clock_before_the_program_was_installed_fails() -> None:
    wrong = next(iter(machine.clock(datetime(2000, 1, 1, tzinfo=UTC))))
    assert (wrong.check, wrong.level) == ("clock", Level.FAIL)
    assert [finding.check for finding in machine.clock(datetime.now(UTC))] == ["time service"]


def test_versions_are_named(doctor: Doctor) -> None:
    level, message = doctor.ask().one("versions")
    assert level == "OK"
    assert f"Python {sys.version.split()[0]}" in message
    assert f"SQLite {sqlite3.sqlite_version}" in message
