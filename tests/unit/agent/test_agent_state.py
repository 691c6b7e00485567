"""The state folder: private, writable, and held by one agent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_sim.agent.state import StateError, StateFolder

REPOSITORY = Path(__file__).parents[3]


def test_it_is_made_closed_to_others_and_an_open_one_of_ours_is_closed(tmp_path: Path) -> None:
    for path in (tmp_path / "a" / "new", tmp_path / "open"):
        if path.name == "open":
            path.mkdir(mode=0o755)
        StateFolder(path).make()
        assert path.stat().st_mode & 0o777 == 0o700
        assert list(path.iterdir()) == []


def test_an_open_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(0o750)
    with pytest.raises(StateError, match="chmod 700"):
        StateFolder(path).check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)
    for use in (StateFolder(path).check, StateFolder(path).make):
        with pytest.raises(StateError, match="uid 12345"):
            use()


def test_a_missing_folder_and_a_file_in_its_place_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="enrol first"):
        StateFolder(tmp_path / "none").check()
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="--state"):
        StateFolder(tmp_path / "file").check()
    with pytest.raises(StateError, match="in the way"):
        StateFolder(tmp_path / "file").make()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "owner"),
        (errno.EIO, "--state"),
    ],
)
def test_a_folder_that_takes_no_data_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StateError, match=words):
        StateFolder(tmp_path).check_writable()


def test_a_second_holder_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert state.holder() is None
    with state.locked():
        assert state.holder() == str(os.getpid())
        with pytest.raises(StateError, match=rf"process {os.getpid()}\b"), state.locked():
            pass
    assert state.holder() is None
    with state.locked():
        pass


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from agent_sim.agent.state import StateFolder\n"
        "with StateFolder(Path(sys.argv[1])).locked(): os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/python'}"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert done.returncode == 9
    with StateFolder(tmp_path).locked():
        pass
