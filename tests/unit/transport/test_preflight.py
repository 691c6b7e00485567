from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane import preflight
from controlplane.preflight import FolderLock, StartRefused
from controlplane.trust.layout import DATABASE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trust").mkdir()
    return tmp_path


def test_good_folder_passes_and_nothing_is_left_behind_but_the_lock(folder: Path) -> None:
    with preflight.check(folder, max_agents=1):
        assert {path.name for path in folder.iterdir()} == {"trust", preflight.LOCK_NAME}


def test_missing_folder_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="fleetwright init"):
        preflight.check_folder(tmp_path / "nowhere")


def test_folder_that_was_never_initialised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match=r"never initialised.*fleetwright init"):
        preflight.check_folder(tmp_path)


def test_a_database_without_its_keys_is_refused_and_no_new_keys_are_advised(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    with pytest.raises(StartRefused, match=r"put the trust/ of the same installation there") as refused:
        preflight.check_folder(tmp_path)
    assert "init" not in str(refused.value)


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EROFS, "mount it read-write"), (errno.EACCES, "change its owner or mode")]
)
def test_folder_that_cannot_be_written_is_refused_with_the_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def fail(_path: Path, _data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    # Root may write everywhere, so the system's answer is given here.
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StartRefused, match=remedy) as refused:
        preflight.check_folder(folder)
    assert str(folder) in str(refused.value)


def test_full_disk_is_refused_and_leaves_nothing_behind(folder: Path) -> None:
    with pytest.raises(StartRefused, match="disk is full"):
        preflight.check_disk(folder, needed=1 << 60)
    assert not list(folder.glob(".preflight*"))


def test_second_server_on_the_folder_is_refused_with_the_process_of_the_first(folder: Path) -> None:
    with FolderLock(folder), pytest.raises(StartRefused, match=f"process {os.getpid()}"):
        FolderLock(folder)
    FolderLock(folder).release()


def test_those_that_share_a_folder_keep_out_who_wants_it_alone(folder: Path) -> None:
    with FolderLock(folder, shared=True), FolderLock(folder, shared=True):
        with pytest.raises(StartRefused, match="another server uses it"):
            FolderLock(folder)
        assert preflight.holder_of(folder) == str(os.getpid())
    assert preflight.holder_of(folder) is None
    with FolderLock(folder), pytest.raises(StartRefused, match="another server uses it"):
        FolderLock(folder, shared=True)


def test_several_processes_are_refused_on_sqlite_alone() -> None:
    preflight.check_split("3 gateways", alone=False)
    preflight.check_split("", alone=True)
    with pytest.raises(StartRefused, match=r"3 gateways: .* FLEETWRIGHT_DATABASE_URL"):
        preflight.check_split("3 gateways", alone=True)


def test_server_that_was_killed_leaves_the_folder_free(folder: Path) -> None:
    code = "import os, sys, pathlib; from controlplane.preflight import FolderLock\n"
    code += "FolderLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    died = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert died.returncode == -9
    FolderLock(folder).release()


def test_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert preflight.raise_open_files(max_agents=1) == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_are_refused_with_how_many_agents_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (4096, 4096))
    with pytest.raises(StartRefused, match="fits 3072 agents") as refused:
        preflight.raise_open_files(max_agents=10_000)
    assert "ulimit -Hn 11024" in str(refused.value)


def test_lock_is_given_up_when_a_later_check_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (300, 300))
    with pytest.raises(StartRefused, match="open files"):
        preflight.check(folder, max_agents=10_000)
    FolderLock(folder).release()
