"""The repository's side of TUF: the ceremony, and publishing as pure steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.verify.keys import KEYS_TARGET, Purpose
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Timestamp

from controlplane.trust.keys import KeyFileError, SigningKey, load_key
from controlplane.trust.tuf.ceremony import initialise, load_online
from controlplane.trust.tuf.publishing import (
    Publication,
    file_names,
    publish,
    refresh,
    released,
    revoke,
)
from controlplane.trust.tuf.roles import (
    RepositoryError,
    Target,
    Thresholds,
    check_channel,
    target_path,
)
from controlplane.trust.tuf.rotation import (
    add_signature,
)
from controlplane.trust.tuf.state import RepositoryState, load, read
from tests.unit.verify.evidence_world import (
    EXPIRIES,
    NOW,
    PACKAGE,
    PATH,
    Repository,
    ceremony,
    client,
    target,
)

KEYS = ceremony().online.keys
FIRST = ceremony().online.state
ROOT_KEYS, TARGETS_KEYS = ceremony().root_keys, ceremony().targets_keys


def make(folder: Path, **changes: Any) -> Any:
    usual = {"now": NOW, "thresholds": Thresholds(), "expiries": EXPIRIES, "channels": ["stable", "beta"]}
    wanted: dict[str, Any] = {**usual, **changes}
    return initialise(folder / "offline", folder / "online", **wanted)


def published(state: RepositoryState = FIRST, content: bytes = PACKAGE, path: str = PATH) -> Publication:
    return publish(state, "stable", [target(path, content)], KEYS, NOW, EXPIRIES)


def sign(document: bytes, keys: tuple[SigningKey, ...]) -> bytes:
    for key in keys:
        document = add_signature(document, key)
    return document


def test_offline_and_online_keys_lie_apart(tmp_path: Path) -> None:
    made = make(tmp_path)
    offline = {path.name for path in (tmp_path / "offline").iterdir()}
    online = {path.name for path in (tmp_path / "online" / "keys").iterdir()}
    assert offline == {
        *(f"{role}-{number}.pem" for role in ("root", "targets") for number in (1, 2, 3)),
        "root.json",
    }
    assert online == {
        "snapshot.pem", "timestamp.pem", "channel-stable.pem", "channel-beta.pem",
        *(f"attest-{purpose.value}.pem" for purpose in Purpose),
    }  # fmt: skip
    root = made.state.root
    held = {
        role: {load_key(path).key_id for path in (tmp_path / "offline").glob(f"{role}-*.pem")}
        for role in ("root", "targets")
    }
    assert {role: set(root.roles[role].keyids) for role in held} == held
    assert {role: root.roles[role].threshold for role in root.roles} == {
        "root": 2,
        "targets": 2,
        "snapshot": 1,
        "timestamp": 1,
    }
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*"))


def test_what_the_ceremony_made_serves_an_agent(tmp_path: Path) -> None:
    make(tmp_path)
    loaded = load_online(tmp_path / "online")
    agent = client(tmp_path / "state", Repository(loaded.state))
    agent._root = loaded.trusted_root
    assert agent.refresh() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    assert set(loaded.attesters) == set(Purpose)
    assert agent.find(KEYS_TARGET).length == len(loaded.key_document)


def test_offline_keys_may_be_encrypted_and_online_ones_are_not(tmp_path: Path) -> None:
    make(tmp_path, passphrase="correct horse battery")
    with pytest.raises(KeyFileError, match="encrypted"):
        load_key(tmp_path / "offline" / "root-1.pem")
    load_key(tmp_path / "offline" / "root-1.pem", "correct horse battery")
    load_online(tmp_path / "online")


@pytest.mark.parametrize("name", ["offline", "online"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(RepositoryError, match="exists already"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_one_folder_within_the_other_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no folder: make that first"):
        initialise(
            tmp_path / "a",
            tmp_path / "a" / "b",
            now=NOW,
            thresholds=Thresholds(),
            expiries=EXPIRIES,
            channels=["a"],
        )
    with pytest.raises(RepositoryError, match="within the other"):
        initialise(
            tmp_path / "a",
            tmp_path / "a",
            now=NOW,
            thresholds=Thresholds(),
            expiries=EXPIRIES,
            channels=["a"],
        )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"channels": []}, "name one at least"),
        ({"channels": ["a", "a"]}, "each once"),
        ({"channels": ["Stable"]}, "lower-case"),
        ({"channels": ["targets"]}, "none of"),
        ({"passphrase": "short"}, "shorter than"),
    ],
)
def test_a_ceremony_that_cannot_be_leaves_nothing(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    with pytest.raises((RepositoryError, KeyFileError), match=why):
        make(tmp_path, **change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"root": 0}, {"root": 4}, {"targets_keys": 1}, {"root_keys": 17}, {"root": -1, "root_keys": 0}]
)
def test_thresholds_that_cannot_be_met_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(RepositoryError, match="threshold"):
        Thresholds(**change)


def test_publishing_bumps_the_channel_the_snapshot_and_the_timestamp() -> None:
    made = published()
    assert file_names(made) == ["2.snapshot.json", "2.stable.json", "timestamp.json"]
    assert made.state.versions == {
        "root": 1,
        "targets": 1,
        "stable": 2,
        "beta": 1,
        "snapshot": 2,
        "timestamp": 2,
    }
    assert FIRST.versions["stable"] == 1
    assert set(released(made.state, "stable")) == {PATH}


def test_publishing_is_a_function_of_what_it_is_given() -> None:
    assert published() == published()


def test_publishing_the_same_again_changes_nothing() -> None:
    made = published()
    again = published(made.state)
    assert not again.changed
    assert again.state == made.state


def test_a_path_never_means_other_bytes() -> None:
    with pytest.raises(RepositoryError, match="give other bytes another version"):
        published(published().state, b"other")


def test_attestations_may_be_replaced_by_newer_ones() -> None:
    path = f"{PATH}.attestations.jsonl"
    made = published(published(content=b"one", path=path).state, b"two", path)
    assert released(made.state, "stable")[path] == target(path, b"two")


def test_what_is_said_of_a_target_is_kept() -> None:
    wanted = Target(PATH, 3, "a" * 64, {"build": "pipelines/1"})
    made = publish(FIRST, "stable", [wanted], KEYS, NOW, EXPIRIES)
    assert released(made.state, "stable") == {PATH: wanted}


@pytest.mark.parametrize(
    "path",
    [
        "beta/curl/x",
        "stable/curl",
        "stable/a/b/c",
        "stable/../x",
        "stable//x",
        "trust/x/y",
        "stable/.a/x",
        "/stable/a/b",
        "stable/a/\0",
    ],
)
def test_a_channel_releases_below_its_own_name_only(path: str) -> None:
    with pytest.raises(RepositoryError):
        published(path=path)


@given(st.text(max_size=12), st.text(max_size=12))
def test_parts_of_a_path_stay_parts(name: str, file: str) -> None:
    try:
        path = target_path("stable", name, file)
    except RepositoryError:
        return
    assert path.split("/") == ["stable", name, file]
    assert all(not part.startswith(".") for part in path.split("/"))


def test_an_unknown_channel_is_refused() -> None:
    for call in (
        lambda: publish(FIRST, "gamma", [], KEYS, NOW, EXPIRIES),
        lambda: revoke(FIRST, "gamma", [], KEYS, NOW, EXPIRIES),
        lambda: released(FIRST, "gamma"),
    ):
        with pytest.raises(RepositoryError, match="there are stable, beta"):
            call()
    with pytest.raises(RepositoryError, match="channel"):
        check_channel("a/b")


def test_a_channel_without_its_key_is_refused() -> None:
    with pytest.raises(RepositoryError, match="not on this server"):
        publish(FIRST, "stable", [target(PATH, PACKAGE)], replace(KEYS, channels={}), NOW, EXPIRIES)


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "stable"])
def test_a_wrong_key_is_noticed_before_anything_is_stored(role: str) -> None:
    other = SigningKey.generate()
    keys = {
        "snapshot": replace(KEYS, snapshot=other),
        "timestamp": replace(KEYS, timestamp=other),
        "stable": replace(KEYS, channels={**KEYS.channels, "stable": other}),
    }[role]
    with pytest.raises(RepositoryError, match=f"role {role}"):
        publish(FIRST, "stable", [target(PATH, PACKAGE)], keys, NOW, EXPIRIES)


def test_revoking_twice_is_revoking_once() -> None:
    made = revoke(published().state, "stable", [PATH], KEYS, NOW, EXPIRIES)
    assert released(made.state, "stable") == {}
    assert not revoke(made.state, "stable", [PATH], KEYS, NOW, EXPIRIES).changed


@pytest.mark.parametrize(
    ("after", "bumped"),
    [
        (timedelta(hours=1), []),
        (timedelta(hours=17), ["timestamp.json"]),
        (timedelta(days=5), ["2.snapshot.json", "timestamp.json"]),
        (timedelta(days=21), ["2.beta.json", "2.snapshot.json", "2.stable.json", "timestamp.json"]),
    ],
)
def test_what_ends_soon_is_signed_again(after: timedelta, bumped: list[str]) -> None:
    now = NOW + after
    made = refresh(FIRST, KEYS, now, EXPIRIES)
    assert file_names(made) == bumped
    assert read(Timestamp, made.state.timestamp).signed.expires > now + timedelta(hours=6)
    assert not refresh(made.state, KEYS, now, EXPIRIES).changed


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["publish", "revoke", "refresh"]), st.integers(0, 3), st.integers(0, 40)),
        max_size=8,
    )
)
def test_every_sequence_leaves_one_consistent_repository(steps: list[tuple[str, int, int]]) -> None:
    state, now = FIRST, NOW
    for kind, number, hours in steps:
        now += timedelta(hours=hours)
        path = f"stable/curl/curl-{number}.deb"
        calls: dict[str, Callable[[], Publication]] = {
            "publish": lambda path=path, state=state, now=now: publish(
                state, "stable", [target(path, PACKAGE)], KEYS, now, EXPIRIES
            ),  # type: ignore[misc]
            "revoke": lambda path=path, state=state, now=now: revoke(
                state, "stable", [path], KEYS, now, EXPIRIES
            ),  # type: ignore[misc]
            "refresh": lambda state=state, now=now: refresh(state, KEYS, now, EXPIRIES),  # type: ignore[misc]
        }
        made = calls[kind]()
        before, after = state.versions, made.state.versions
        assert all(before[role] <= after[role] <= before[role] + 1 for role in after)
        assert (after["timestamp"] > before["timestamp"]) == made.changed
        state = made.state
        state.check()
    assert load(state.files()) == state


def test_a_state_is_found_among_its_files_and_older_ones() -> None:
    made = published()
    assert load({**FIRST.files(), **made.files}) == made.state


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"timestamp.json": None}, "timestamp.json: missing"),
        ({"1.stable.json": None}, "1.stable.json: missing"),
        ({"1.root.json": None}, "every one from 1.root.json on"),
        ({"2.root.json": FIRST.roots[0]}, "2.root.json: holds version 1"),
        ({"1.snapshot.json": FIRST.targets}, "targets metadata, where snapshot is expected"),
        ({"1.targets.json": b"{}"}, "targets metadata"),
        ({"1.stable.json": FIRST.channels["beta"]}, "role stable"),
    ],
)
def test_a_broken_folder_of_metadata_is_refused(change: dict[str, bytes | None], why: str) -> None:
    files = {name: content for name, content in {**FIRST.files(), **change}.items() if content is not None}
    with pytest.raises(RepositoryError, match=why):
        load(files)
