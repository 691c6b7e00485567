"""The client's own folder: what is broken in it is fetched again, and nothing is believed for lying there."""

from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from fleetwright.verify.errors import Rollback, StateError, TooFewSignatures

from controlplane.trust.keys import SigningKey
from controlplane.trust.tuf.roles import OnlineKeys, RoleKeys
from controlplane.trust.tuf.rotation import accept_root, add_signature, draft_root
from tests.unit.verify.evidence_world import (
    DAY,
    EXPIRIES,
    NOW,
    PATH,
    Repository,
    ceremony,
    client,
    repository,
)

KEYS = ceremony().online.keys


@pytest.fixture
def repo() -> Repository:
    return repository()


def rotate(repo: Repository, keys: OnlineKeys = KEYS, **roles: RoleKeys) -> None:
    """Take in a next root, signed by two keys of the ceremony and by those that it names."""
    document = draft_root(repo.state.roots[-1], roles, NOW + 300 * DAY)
    for key in ceremony().root_keys[:2]:
        document = add_signature(document, key)
    repo.take(accept_root(repo.state, document, keys, NOW, EXPIRIES).state)


@pytest.mark.parametrize(
    "name", ["timestamp.json", "snapshot.json", "targets.json", "stable.json", "root.json"]
)
@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"{}", b"[" * 5000, b'{"signed": {}}'])
def test_broken_metadata_of_ours_is_fetched_again(
    repo: Repository, tmp_path: Path, name: str, content: bytes
) -> None:
    agent = client(tmp_path, repo)
    agent.find(PATH)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(content)
    agent.find(PATH)
    assert json.loads((tmp_path / name).read_bytes())["signed"]


def test_what_was_repaired_is_said(repo: Repository, tmp_path: Path) -> None:
    agent = client(tmp_path, repo)
    agent.refresh()
    assert not agent.repaired
    (tmp_path / "timestamp.json").write_bytes(b"\0")
    agent.refresh()
    assert agent.repaired == ("timestamp.json",)


def test_folders_where_files_belong_are_removed(repo: Repository, tmp_path: Path) -> None:
    agent = client(tmp_path, repo)
    agent.refresh()
    (tmp_path / "snapshot.json").unlink()
    (tmp_path / "snapshot.json" / "deep").mkdir(parents=True)
    shutil.rmtree(tmp_path / "root_history")
    (tmp_path / "root_history").write_bytes(b"no folder")
    agent.refresh()
    assert set(agent.repaired) == {"root_history", "root.json", "snapshot.json"}


def test_a_root_that_lies_in_the_folder_is_not_believed(repo: Repository, tmp_path: Path) -> None:
    mallory = SigningKey.generate()
    forged = draft_root(repo.state.roots[-1], {"root": RoleKeys((mallory.public,))}, NOW + 900 * DAY)
    forged = add_signature(forged, mallory)
    agent = client(tmp_path, repo)
    agent.refresh()
    (tmp_path / "root_history" / "2.root.json").write_bytes(forged)
    (tmp_path / "root.json").unlink()
    (tmp_path / "root.json").write_bytes(forged)
    assert agent.refresh()["root"] == 1
    assert (tmp_path / "root.json").read_bytes() == repo.state.roots[0]


def test_seen_versions_outlive_the_client(repo: Repository, tmp_path: Path) -> None:
    old = dict(repo.files)
    repo.release({"stable/curl/curl-8.2.deb": b"new"})
    client(tmp_path, repo).refresh()
    repo.files["timestamp.json"] = old["timestamp.json"]
    with pytest.raises(Rollback):
        client(tmp_path, repo).refresh()


def test_agents_follow_rotated_roots_from_the_one_they_were_given(repo: Repository, tmp_path: Path) -> None:
    new = tuple(SigningKey.generate() for _ in range(3))
    rotate(repo)
    rotate(repo, timestamp=RoleKeys((new[0].public,)), keys=OnlineKeys(KEYS.snapshot, new[0], KEYS.channels))
    assert client(tmp_path, repo).refresh()["root"] == 3
    assert client(tmp_path, repo).refresh()["root"] == 3
    assert repo.asked.count("2.root.json") == 1


def test_a_root_that_only_its_own_keys_signed_is_refused(repo: Repository, tmp_path: Path) -> None:
    mallory = SigningKey.generate()
    forged = draft_root(repo.state.roots[-1], {"root": RoleKeys((mallory.public,))}, NOW + 900 * DAY)
    repo.files["2.root.json"] = add_signature(forged, mallory)
    with pytest.raises(TooFewSignatures, match="root"):
        client(tmp_path, repo).refresh()


def test_a_folder_that_cannot_be_made_is_said_so(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="folder"):
        client(tmp_path / "file" / "state", repo).refresh()


def test_a_broken_memory_of_the_clock_is_none(repo: Repository, tmp_path: Path) -> None:
    client(tmp_path, repo).refresh()
    for text in ("", "yesterday", "2031-01-01T00:00:00", "\udcff"):
        (tmp_path / "clock").write_bytes(text.encode("utf-8", "surrogateescape"))
        client(tmp_path, repo, NOW - timedelta(minutes=30)).refresh()


def test_what_was_seen_is_on_the_disk_when_a_refresh_returns(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    real = os.fsync

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    client(tmp_path, repo).find(PATH)
    names = ("root.json", "timestamp.json", "snapshot.json", "targets.json", "stable.json", ".")
    assert {(tmp_path / name).stat().st_ino for name in names} <= synced
    synced.clear()
    client(tmp_path, repo).find(PATH)
    assert not synced & {path.stat().st_ino for path in tmp_path.glob("*.json") if not path.is_symlink()}
