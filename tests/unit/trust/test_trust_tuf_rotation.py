"""What is decided with offline keys, what ends soon, and the shape of the metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fleetwright.verify.errors import UnknownTarget
from fleetwright.verify.keys import KEYS_TARGET, AttestationKeys, Purpose, parse_keys
from tuf.api.metadata import Root, Snapshot, Targets

from controlplane.trust.keys import SigningKey
from controlplane.trust.tuf.expiry import warnings
from controlplane.trust.tuf.publishing import (
    Publication,
    file_names,
    publish,
    signed_by,
)
from controlplane.trust.tuf.roles import (
    Expiries,
    OnlineKeys,
    RepositoryError,
    RoleKeys,
)
from controlplane.trust.tuf.rotation import (
    accept_root,
    accept_targets,
    add_signature,
    draft_root,
    draft_targets,
    missing_signatures,
)
from controlplane.trust.tuf.state import RepositoryState, read
from tests.unit.verify.evidence_world import (
    DAY,
    EXPIRIES,
    NOW,
    PACKAGE,
    PATH,
    Repository,
    ceremony,
    client,
    repository,
    target,
)

KEYS = ceremony().online.keys
FIRST = ceremony().online.state
ROOT_KEYS, TARGETS_KEYS = ceremony().root_keys, ceremony().targets_keys


def published(state: RepositoryState = FIRST, content: bytes = PACKAGE, path: str = PATH) -> Publication:
    return publish(state, "stable", [target(path, content)], KEYS, NOW, EXPIRIES)


def sign(document: bytes, keys: tuple[SigningKey, ...]) -> bytes:
    for key in keys:
        document = add_signature(document, key)
    return document


def test_a_root_is_rotated_by_the_keys_before_and_after(tmp_path: Path) -> None:
    new = tuple(SigningKey.generate() for _ in range(3))
    roles = {"root": RoleKeys(tuple(key.public for key in new), 2)}
    draft = draft_root(FIRST.roots[-1], roles, NOW + 400 * DAY)
    assert len(missing_signatures(FIRST, draft)) == 2
    draft = sign(draft, ROOT_KEYS[:2])
    [lacking] = missing_signatures(FIRST, draft)
    assert "by the keys of itself: 0 of 2" in lacking
    with pytest.raises(RepositoryError, match="0 of 2"):
        accept_root(FIRST, draft, KEYS, NOW, EXPIRIES)
    made = accept_root(FIRST, sign(draft, new[:2]), KEYS, NOW, EXPIRIES)
    assert file_names(made) == ["2.root.json", "2.snapshot.json", "timestamp.json"]
    repo = Repository(made.state)
    assert client(tmp_path, repo).refresh()["root"] == 2
    assert set(made.state.root.keys) >= {key.key_id for key in new}
    assert ROOT_KEYS[0].key_id not in made.state.root.keys


def test_stolen_online_keys_are_replaced_by_a_root(tmp_path: Path) -> None:
    fresh = OnlineKeys(SigningKey.generate(), SigningKey.generate(), KEYS.channels)
    roles = {"snapshot": RoleKeys((fresh.snapshot.public,)), "timestamp": RoleKeys((fresh.timestamp.public,))}
    draft = sign(draft_root(FIRST.roots[-1], roles, NOW + 400 * DAY), ROOT_KEYS[1:])
    with pytest.raises(RepositoryError, match="role snapshot"):
        accept_root(FIRST, draft, KEYS, NOW, EXPIRIES)
    made = accept_root(FIRST, draft, fresh, NOW, EXPIRIES)
    client(tmp_path, Repository(made.state)).refresh()


def test_a_root_that_jumps_or_stays_is_refused() -> None:
    jump = draft_root(draft_root(FIRST.roots[-1], {}, NOW + DAY), {}, NOW + DAY)
    for document in (jump, FIRST.roots[-1]):
        with pytest.raises(RepositoryError, match="where 2 comes next"):
            accept_root(FIRST, document, KEYS, NOW, EXPIRIES)


def test_a_root_speaks_of_the_four_roles_only() -> None:
    with pytest.raises(RepositoryError, match="a root speaks of"):
        draft_root(FIRST.roots[-1], {"stable": RoleKeys((ROOT_KEYS[0].public,))}, NOW)


def test_signing_twice_with_one_key_is_once() -> None:
    draft = draft_root(FIRST.roots[-1], {}, NOW + DAY)
    once = add_signature(draft, ROOT_KEYS[0])
    assert add_signature(once, ROOT_KEYS[0]) == once
    assert len(missing_signatures(FIRST, once)) == 2


def test_a_channel_is_added_by_the_offline_keys(tmp_path: Path) -> None:
    key = SigningKey.generate()
    draft = draft_targets(FIRST.targets, {"canary": RoleKeys((key.public,))}, None, NOW + 300 * DAY)
    with pytest.raises(RepositoryError, match="1 of 2 signatures"):
        accept_targets(FIRST, sign(draft, TARGETS_KEYS[:1]), KEYS, NOW, EXPIRIES)
    document = sign(draft, TARGETS_KEYS[1:])
    with pytest.raises(RepositoryError, match="channel canary"):
        accept_targets(FIRST, document, KEYS, NOW, EXPIRIES)
    keys = replace(KEYS, channels={**KEYS.channels, "canary": key})
    made = accept_targets(FIRST, document, keys, NOW, EXPIRIES)
    assert file_names(made) == ["1.canary.json", "2.snapshot.json", "2.targets.json", "timestamp.json"]
    with pytest.raises(UnknownTarget):
        client(tmp_path, Repository(made.state)).find("canary/a/b")


def test_a_stolen_channel_key_is_replaced(tmp_path: Path) -> None:
    repo = repository()
    key = SigningKey.generate()
    draft = draft_targets(repo.state.targets, {"stable": RoleKeys((key.public,))}, None, NOW + 300 * DAY)
    keys = replace(KEYS, channels={**KEYS.channels, "stable": key})
    repo.take(accept_targets(repo.state, sign(draft, TARGETS_KEYS[:2]), keys, NOW, EXPIRIES).state)
    assert client(tmp_path, repo).find(PATH).length == len(PACKAGE)
    with pytest.raises(RepositoryError, match="role stable"):
        publish(repo.state, "stable", [target("stable/a/b", b"")], KEYS, NOW, EXPIRIES)


def test_attesters_are_replaced_by_the_offline_keys(tmp_path: Path) -> None:
    document = AttestationKeys(2, parse_keys(ceremony().online.key_document).attesters[:1]).to_bytes()
    draft = sign(draft_targets(FIRST.targets, {}, document, NOW + 300 * DAY), TARGETS_KEYS[:2])
    made = accept_targets(FIRST, draft, KEYS, NOW, EXPIRIES)
    assert client(tmp_path, Repository(made.state)).find(KEYS_TARGET).length == len(document)


def test_a_channel_is_never_taken_away() -> None:
    targets = read(Targets, FIRST.targets)
    assert targets.signed.delegations
    assert targets.signed.delegations.roles
    del targets.signed.delegations.roles["beta"]
    targets.signed.version += 1
    with pytest.raises(RepositoryError, match="none may go"):
        accept_targets(FIRST, signed_by(targets, TARGETS_KEYS, NOW + DAY), KEYS, NOW, EXPIRIES)


def test_what_is_signed_must_be_readable() -> None:
    for document in (b"", b"{}", b"\xff"):
        with pytest.raises(RepositoryError, match="again"):
            add_signature(document, ROOT_KEYS[0])
        with pytest.raises(RepositoryError):
            missing_signatures(FIRST, document)


def test_role_keys_that_cannot_sign_are_refused() -> None:
    one = ROOT_KEYS[0].public
    for keys, threshold in (((), 1), ((one,), 2), ((one, one), 1), ((one,), 0)):
        with pytest.raises(RepositoryError, match="cannot sign for a role"):
            RoleKeys(keys, threshold)


def test_nothing_is_said_while_nothing_ends() -> None:
    assert warnings(FIRST, NOW, EXPIRIES, parse_keys(ceremony().online.key_document)) == []


def test_what_ends_soon_is_said_most_urgent_first() -> None:
    now = NOW + timedelta(days=320)
    found = warnings(FIRST, now, EXPIRIES)
    assert [warning.role for warning in found] == [
        "timestamp",
        "snapshot",
        "stable",
        "beta",
        "root",
        "targets",
    ]
    assert "ended" in str(found[0])
    assert "the server should have signed it again" in str(found[0])
    assert "offline keys" in str(found[-1])


def test_a_server_that_missed_its_turn_is_noticed_before_agents_are_refused() -> None:
    [only] = warnings(FIRST, NOW + timedelta(hours=21), EXPIRIES)
    assert only.role == "timestamp"
    assert only.left == timedelta(hours=3)


def test_attesters_that_end_are_named() -> None:
    keys = parse_keys(ceremony().online.key_document)
    state = replace(FIRST)
    found = warnings(state, NOW + timedelta(days=700), Expiries(), keys)
    assert sum("attestation keys" in warning.remedy for warning in found) == len(Purpose)


def test_lives_have_a_shortest() -> None:
    with pytest.raises(RepositoryError, match="life of timestamp"):
        Expiries(timestamp=timedelta(seconds=1))


def test_metadata_is_the_specification_s() -> None:
    made = published().state
    for content in (*made.roots, made.targets, made.snapshot, made.timestamp, *made.channels.values()):
        signed = json.loads(content)["signed"]
        assert signed["spec_version"].startswith("1.0.")
        assert signed["expires"].endswith("Z")
    assert read(Root, made.roots[0]).signed.consistent_snapshot
    snapshot = read(Snapshot, made.snapshot).signed
    assert all(meta.hashes and meta.length for meta in snapshot.meta.values())
    delegations = read(Targets, made.targets).signed.delegations
    assert delegations
    assert delegations.roles
    assert [(role.name, role.terminating, role.paths) for role in delegations.roles.values()] == [
        ("stable", True, ["stable/*/*"]),
        ("beta", True, ["beta/*/*"]),
    ]
