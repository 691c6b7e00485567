"""What a repository, or whoever stands between, may try; each is refused with its own error."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.verify.errors import (
    EndlessData,
    Expired,
    MalformedMetadata,
    MixAndMatch,
    Rollback,
    SlowData,
    TooFewSignatures,
    UnknownRole,
    UnknownTarget,
    WrongTarget,
)
from fleetwright.verify.evidence import attestations_path
from fleetwright.verify.keys import KEYS_TARGET
from fleetwright.verify.tuf_client import Limits
from tuf.api.metadata import (
    MetaFile,
    Snapshot,
    Targets,
    Timestamp,
)

from controlplane.trust.tuf.publishing import publish, refresh, signed_by
from controlplane.trust.tuf.state import read
from tests.unit.verify.evidence_world import (
    DAY,
    EXPIRIES,
    NOW,
    PACKAGE,
    PATH,
    Repository,
    ceremony,
    client,
    empty_repository,
    repository,
    reseal,
    target,
)

KEYS = ceremony().online.keys


@pytest.fixture
def repo() -> Repository:
    return repository()


def endless(_name: str) -> Iterator[bytes]:
    return itertools.repeat(b" " * 65536)


def later(repo: Repository, now: Any = NOW) -> None:
    """Publish one more package, so that every online role has a newer version."""
    repo.release({"stable/curl/curl-8.2.deb": PACKAGE}, now=now)


def test_a_release_is_found_and_fetched(repo: Repository, tmp_path: Path) -> None:
    agent = client(tmp_path / "state", repo)
    release = agent.download(PATH, tmp_path / "package")
    assert (tmp_path / "package").read_bytes() == PACKAGE
    assert (release.length, release.path) == (len(PACKAGE), PATH)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "package", tmp_path / "state"]


def test_a_file_that_is_the_released_one_is_not_fetched_again(repo: Repository, tmp_path: Path) -> None:
    agent = client(tmp_path / "state", repo)
    agent.download(PATH, tmp_path / "package")
    repo.targets.clear()
    agent.download(PATH, tmp_path / "package")


def test_the_keys_of_who_attests_are_released_by_the_offline_role(repo: Repository, tmp_path: Path) -> None:
    found = client(tmp_path, repo).find_all([KEYS_TARGET, PATH, attestations_path(PATH), "stable/no/thing"])
    assert [type(item).__name__ for item in found.values()] == [
        "Release",
        "Release",
        "Release",
        "UnknownTarget",
    ]


def test_swapped_bytes_are_refused_and_not_kept(repo: Repository, tmp_path: Path) -> None:
    for name in repo.targets:
        repo.targets[name] = repo.targets[name].swapcase()
    with pytest.raises(WrongTarget, match="do not use it"):
        client(tmp_path / "state", repo).download(PATH, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_refused_download_leaves_the_file_before_it_as_it_was(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "package").write_bytes(b"old")
    for name in repo.targets:
        repo.targets[name] = b"short"
    with pytest.raises(WrongTarget):
        client(tmp_path / "state", repo).download(PATH, tmp_path / "package")
    assert (tmp_path / "package").read_bytes() == b"old"


def test_an_older_timestamp_is_a_rollback(repo: Repository, tmp_path: Path) -> None:
    old = dict(repo.files)
    later(repo)
    client(tmp_path, repo).refresh()
    repo.files.update({"timestamp.json": old["timestamp.json"]})
    with pytest.raises(Rollback, match=r"timestamp\.json"):
        client(tmp_path, repo).refresh()


def test_a_new_timestamp_that_names_an_older_snapshot_is_a_rollback(repo: Repository, tmp_path: Path) -> None:
    before = repo.state
    later(repo)
    client(tmp_path, repo).refresh()
    stamp = read(Timestamp, repo.state.timestamp)
    stamp.signed.snapshot_meta = MetaFile.from_data(
        read(Snapshot, before.snapshot).signed.version, before.snapshot, ["sha256"]
    )
    stamp.signed.version += 1
    repo.files["timestamp.json"] = signed_by(stamp, [KEYS.timestamp], NOW + DAY)
    with pytest.raises(Rollback):
        client(tmp_path, repo).refresh()


def test_a_snapshot_that_names_an_older_channel_is_a_rollback(repo: Repository, tmp_path: Path) -> None:
    client(tmp_path, repo).find(PATH)
    meta = read(Snapshot, repo.state.snapshot).signed.meta
    reseal(repo, {**meta, "stable.json": MetaFile(1)})
    with pytest.raises(Rollback, match="stable"):
        client(tmp_path, repo).refresh()


def test_a_snapshot_that_forgets_a_channel_is_a_rollback(repo: Repository, tmp_path: Path) -> None:
    client(tmp_path, repo).refresh()
    meta = read(Snapshot, repo.state.snapshot).signed.meta
    reseal(repo, {name: file for name, file in meta.items() if name != "beta.json"})
    with pytest.raises(Rollback, match="beta"):
        client(tmp_path, repo).refresh()


def test_a_channel_that_the_snapshot_never_knew_is_an_unknown_role(repo: Repository, tmp_path: Path) -> None:
    meta = read(Snapshot, repo.state.snapshot).signed.meta
    reseal(repo, {name: file for name, file in meta.items() if name != "stable.json"})
    with pytest.raises(UnknownRole, match="stable"):
        client(tmp_path, repo).find(PATH)


def test_a_repository_that_stands_still_is_refused_once_its_time_is_over(
    repo: Repository, tmp_path: Path
) -> None:
    client(tmp_path, repo).refresh()
    with pytest.raises(Expired, match="held back"):
        client(tmp_path, repo, NOW + 2 * DAY).refresh()


def test_a_channel_past_its_time_is_refused(repo: Repository, tmp_path: Path) -> None:
    now = NOW + 31 * DAY
    stale = repo.state.channels["stable"]
    version = read(Targets, stale).signed.version
    repo.take(refresh(repo.state, KEYS, NOW + 29 * DAY, EXPIRIES).state)
    meta = dict(read(Snapshot, repo.state.snapshot).signed.meta)
    meta["stable.json"] = MetaFile(version)
    stamp, snapshot = read(Timestamp, repo.state.timestamp), read(Snapshot, repo.state.snapshot)
    snapshot.signed.meta = meta
    repo.files[f"{snapshot.signed.version}.snapshot.json"] = signed_by(snapshot, [KEYS.snapshot], now + DAY)
    stamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    repo.files["timestamp.json"] = signed_by(stamp, [KEYS.timestamp], now + DAY)
    with pytest.raises(Expired, match="stable"):
        client(tmp_path, repo, now).find(PATH)


def test_an_expired_root_is_refused(repo: Repository, tmp_path: Path) -> None:
    repo.take(refresh(repo.state, KEYS, NOW + 366 * DAY, EXPIRIES).state)
    with pytest.raises(Expired, match="root"):
        client(tmp_path, repo, NOW + 366 * DAY).refresh()


def test_a_snapshot_of_another_publication_is_a_mix(repo: Repository, tmp_path: Path) -> None:
    first = repo.state
    later(repo)
    number = read(Snapshot, repo.state.snapshot).signed.version
    repo.files[f"{number}.snapshot.json"] = first.snapshot
    with pytest.raises(MixAndMatch, match="not published together"):
        client(tmp_path, repo).refresh()


def test_a_snapshot_of_another_version_without_digests_is_a_mix(repo: Repository, tmp_path: Path) -> None:
    first = repo.state
    later(repo)
    stamp = read(Timestamp, repo.state.timestamp)
    number = stamp.signed.snapshot_meta.version
    stamp.signed.snapshot_meta = MetaFile(number)
    stamp.signed.version += 1
    repo.files["timestamp.json"] = signed_by(stamp, [KEYS.timestamp], NOW + DAY)
    repo.files[f"{number}.snapshot.json"] = first.snapshot
    with pytest.raises(MixAndMatch, match="snapshot"):
        client(tmp_path, repo).refresh()


def test_a_channel_of_another_publication_is_a_mix(repo: Repository, tmp_path: Path) -> None:
    first = repo.state
    later(repo)
    number = read(Targets, repo.state.channels["stable"]).signed.version
    repo.files[f"{number}.stable.json"] = first.channels["stable"]
    with pytest.raises(MixAndMatch, match="stable"):
        client(tmp_path, repo).find(PATH)


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "2.root.json"])
def test_endless_metadata_is_cut_off(repo: Repository, tmp_path: Path, name: str) -> None:
    later(repo)
    real = repo.metadata
    fetcher = Repository(repo.state)
    fetcher.metadata = lambda asked: endless(asked) if asked == name else real(asked)  # type: ignore[method-assign,assignment]  # broken on purpose
    with pytest.raises(EndlessData, match=name.replace(".", r"\.")):
        client(tmp_path, fetcher).refresh()


def test_an_endless_package_is_cut_off_at_its_length(repo: Repository, tmp_path: Path) -> None:
    repo.target = endless  # type: ignore[method-assign,assignment]  # broken on purpose
    with pytest.raises(EndlessData):
        client(tmp_path / "state", repo).download(PATH, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_data_that_trickles_is_given_up(repo: Repository, tmp_path: Path) -> None:
    seconds = itertools.count(0, 60)
    agent = client(
        tmp_path, repo, limits=Limits(within=timedelta(seconds=30)), monotonic=lambda: float(next(seconds))
    )
    with pytest.raises(SlowData, match="within 30 s"):
        agent.refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_metadata_that_another_key_signed_is_refused(repo: Repository, tmp_path: Path, role: str) -> None:
    wrong = KEYS.channels["beta"]
    if role == "timestamp":
        stamp = read(Timestamp, repo.state.timestamp)
        repo.files["timestamp.json"] = signed_by(stamp, [wrong], NOW + DAY)
    else:
        stamp, snapshot = read(Timestamp, repo.state.timestamp), read(Snapshot, repo.state.snapshot)
        stamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
        repo.files["timestamp.json"] = signed_by(stamp, [KEYS.timestamp], NOW + DAY)
        name = f"{snapshot.signed.version}.snapshot.json"
        repo.files[name] = signed_by(snapshot, [wrong], NOW + DAY)
    with pytest.raises(TooFewSignatures, match=role):
        client(tmp_path, repo).refresh()


def test_the_key_of_another_channel_releases_nothing(repo: Repository, tmp_path: Path) -> None:
    stable = read(Targets, repo.state.channels["stable"])
    stable.signed.version += 1
    forged = signed_by(stable, [KEYS.channels["beta"]], NOW + DAY)
    repo.files[f"{stable.signed.version}.stable.json"] = forged
    meta = dict(read(Snapshot, repo.state.snapshot).signed.meta)
    reseal(repo, {**meta, "stable.json": MetaFile(stable.signed.version)})
    with pytest.raises(TooFewSignatures, match="stable"):
        client(tmp_path, repo).find(PATH)


def test_a_channel_cannot_speak_for_another_channels_path(repo: Repository, tmp_path: Path) -> None:
    beta = read(Targets, repo.state.channels["beta"])
    path = "stable/curl/curl-9.deb"
    released = publish(
        empty_repository().state, "stable", [target(path, PACKAGE)], KEYS, NOW, EXPIRIES
    ).state.channels["stable"]
    beta.signed.targets = read(Targets, released).signed.targets
    beta.signed.version += 1
    repo.files[f"{beta.signed.version}.beta.json"] = signed_by(beta, [KEYS.channels["beta"]], NOW + DAY)
    meta = dict(read(Snapshot, repo.state.snapshot).signed.meta)
    reseal(repo, {**meta, "beta.json": MetaFile(beta.signed.version)})
    with pytest.raises(UnknownTarget):
        client(tmp_path, repo).find(path)


def test_targets_with_a_signature_too_few_are_refused(repo: Repository, tmp_path: Path) -> None:
    targets = read(Targets, repo.state.targets)
    targets.signed.version += 1
    repo.files[f"{targets.signed.version}.targets.json"] = signed_by(
        targets, ceremony().targets_keys[:1], NOW + DAY
    )
    meta = dict(read(Snapshot, repo.state.snapshot).signed.meta)
    reseal(repo, {**meta, "targets.json": MetaFile(targets.signed.version)})
    with pytest.raises(TooFewSignatures, match="targets"):
        client(tmp_path, repo).refresh()


def test_one_signature_given_twice_counts_once(repo: Repository, tmp_path: Path) -> None:
    targets = read(Targets, repo.state.targets)
    targets.signed.version += 1
    document = json.loads(signed_by(targets, ceremony().targets_keys[:1], NOW + DAY))
    document["signatures"] *= 2
    repo.files[f"{targets.signed.version}.targets.json"] = json.dumps(document).encode()
    meta = dict(read(Snapshot, repo.state.snapshot).signed.meta)
    reseal(repo, {**meta, "targets.json": MetaFile(targets.signed.version)})
    with pytest.raises((TooFewSignatures, MalformedMetadata)):
        client(tmp_path, repo).refresh()
