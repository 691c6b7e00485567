"""Garbage, accidents and misleading roles; each is refused with its own error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest
from fleetwright.verify import tuf_state
from fleetwright.verify.errors import (
    ClockError,
    EndlessData,
    Expired,
    FetchFailed,
    MalformedMetadata,
    NotFound,
    StateError,
    TooFewSignatures,
    TufError,
    UnknownTarget,
    WrongTarget,
)
from fleetwright.verify.tuf_client import Limits, Release
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Snapshot,
    TargetFile,
    Targets,
)

from controlplane.trust.keys import SigningKey
from controlplane.trust.tuf.publishing import revoke, signed_by
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
)

KEYS = ceremony().online.keys


@pytest.fixture
def repo() -> Repository:
    return repository()


def test_a_revoked_target_is_not_found_any_more(repo: Repository, tmp_path: Path) -> None:
    client(tmp_path, repo).find(PATH)
    repo.take(revoke(repo.state, "stable", [PATH], KEYS, NOW, EXPIRIES).state)
    with pytest.raises(UnknownTarget, match="not any more"):
        client(tmp_path, repo).find(PATH)


def test_a_clock_that_went_back_is_refused(repo: Repository, tmp_path: Path) -> None:
    client(tmp_path, repo).refresh()
    client(tmp_path, repo, NOW - timedelta(minutes=1)).refresh()
    with pytest.raises(ClockError, match="set the clock"):
        client(tmp_path, repo, NOW - timedelta(hours=1)).refresh()


def test_a_refresh_that_failed_is_not_remembered_as_a_time(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(Expired):
        client(tmp_path, repo, NOW + 900 * DAY).refresh()
    client(tmp_path, repo).refresh()


def test_a_repository_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    gone = Repository(ceremony().online.state)
    gone.files.clear()
    with pytest.raises(NotFound, match=r"timestamp\.json"):
        client(tmp_path, gone).refresh()


def test_a_fetcher_that_fails_half_way_is_said_so(repo: Repository, tmp_path: Path) -> None:
    def broken(_name: str) -> Iterator[bytes]:
        yield b"{"
        raise FetchFailed("the line is down")

    repo.metadata = broken  # type: ignore[method-assign,assignment]  # broken on purpose
    with pytest.raises(FetchFailed, match="the line is down"):
        client(tmp_path, repo).refresh()


@pytest.mark.parametrize("kind", [EndlessData, WrongTarget])
def test_what_a_fetcher_knows_without_a_look_at_the_bytes_is_passed_on(
    repo: Repository, tmp_path: Path, kind: type[TufError]
) -> None:
    def broken(_name: str) -> Iterator[bytes]:
        raise kind("the other side says so itself")
        yield b""

    repo.target = broken  # type: ignore[method-assign,assignment]  # broken on purpose
    with pytest.raises(kind, match=r"curl-8\.1\.deb: the other side says so itself"):
        client(tmp_path / "state", repo).download(PATH, tmp_path / "package")


def test_a_trusted_root_that_is_none_is_refused_before_anything_is_asked(
    repo: Repository, tmp_path: Path
) -> None:
    for root in (b"", b"{}", b"\xff", json.dumps({"signed": {}}).encode(), repo.state.targets):
        agent = client(tmp_path, repo)
        agent._root = root
        with pytest.raises(TufError):
            agent.refresh()
    assert repo.asked == []


def says_the_same(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False


@settings(max_examples=60, deadline=None)
@given(
    noise=st.binary(max_size=200),
    at=st.integers(0, 300),
    name=st.sampled_from(["timestamp.json", "2.root.json"]),
)
def test_garbage_is_refused_with_an_error_of_ours(noise: bytes, at: int, name: str) -> None:
    repo = repository()
    content = repo.files.get(name, repo.files["timestamp.json"])
    repo.files[name] = content[:at] + noise + content[at + len(noise) + 1 :]
    assume(not says_the_same(content, repo.files[name]))
    with TemporaryDirectory() as folder, pytest.raises(TufError):
        client(Path(folder), repo).refresh()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"signatures": [], "signed": {"_type": "timestamp", "version": "1"}}',
        b'{"signatures": {}, "signed": []}',
        b'{"signatures": [1], "signed": {"_type": "timestamp"}}',
        b'{"signed": null}',
        b"null",
        b"1" * 5000,
    ],
)
def test_hostile_json_is_malformed_metadata(repo: Repository, tmp_path: Path, content: bytes) -> None:
    repo.files["timestamp.json"] = content
    with pytest.raises(MalformedMetadata):
        client(tmp_path, repo, limits=replace(Limits(), timestamp=200_000)).refresh()


def test_a_second_process_is_refused(repo: Repository, tmp_path: Path) -> None:
    with tuf_state.locked(tmp_path), pytest.raises(StateError, match="another process"):
        client(tmp_path, repo).refresh()


def test_metadata_type_is_what_its_name_says(repo: Repository, tmp_path: Path) -> None:
    repo.files["timestamp.json"] = repo.state.snapshot
    with pytest.raises(TufError):
        client(tmp_path, repo).refresh()


def delegate(
    repo: Repository, delegators: dict[str, list[DelegatedRole]], roles: dict[str, SigningKey]
) -> None:
    """Give the repository other delegations; each role that is made is signed by its key."""
    meta = {"targets.json": MetaFile(2)}
    named = {role.name: role for found in delegators.values() for role in found}
    keys = {key.key_id: key.public.library for key in [*roles.values(), *KEYS.channels.values()]}
    for name in {*delegators, *named}:
        version = 2 if name == "targets" else 1
        metadata = read(Targets, repo.state.targets) if name == "targets" else Metadata(Targets(version=1))
        metadata.signed.version = version
        if name in delegators:
            metadata.signed.delegations = Delegations(
                dict(keys), {role.name: role for role in delegators[name]}
            )
        elif name != "targets":
            for path in ("a/x", "b/x"):
                metadata.signed.targets[path] = TargetFile.from_data(path, PACKAGE, ["sha256"])
        signers = ceremony().targets_keys if name == "targets" else [roles[name]]
        repo.files[f"{version}.{quote(name, safe='')}.json"] = signed_by(metadata, signers, NOW + DAY)
        meta[f"{name}.json"] = MetaFile(version)
    old = read(Snapshot, repo.state.snapshot).signed.meta
    reseal(repo, {**old, **meta})


def a_role(name: str, key: SigningKey, path: str = "*") -> DelegatedRole:
    return DelegatedRole(name, [key.key_id], 1, False, paths=[path])


@pytest.mark.parametrize("name", ["?", "#", "/role", "../role", "a b", "\N{SNOWMAN}", ".."])
def test_a_role_s_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    repo, key = empty_repository(), SigningKey.generate()
    delegate(repo, {"targets": [a_role(name, key)]}, {name: key})
    with pytest.raises(UnknownTarget):
        client(tmp_path / "deep" / "state", repo).find("nothing")
    assert f"1.{quote(name, safe='')}.json" in repo.asked
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["state"]
    assert (tmp_path / "deep" / "state" / f"{quote(name, safe='')}.json").is_file()


def test_a_role_is_believed_only_by_the_delegator_that_leads_to_it(tmp_path: Path) -> None:
    repo = empty_repository()
    keys = {name: SigningKey.generate() for name in "ABC"}
    delegators = {
        "targets": [a_role("A", keys["A"], "a/*"), a_role("B", keys["B"], "b/*")],
        "A": [a_role("C", keys["C"], "a/*")],
        "B": [a_role("C", keys["A"], "b/*")],
    }
    delegate(repo, delegators, keys)
    found = client(tmp_path, repo).find_all(["a/x", "b/x"])
    assert isinstance(found["a/x"], Release)
    assert isinstance(found["b/x"], TooFewSignatures)
    with pytest.raises(TooFewSignatures):
        client(tmp_path, repo).find("b/x")
