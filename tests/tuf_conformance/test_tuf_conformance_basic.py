"""The suite's cases of a plain refresh, by their names there (test_basic, test_expiration)."""

from __future__ import annotations

import json

import pytest
from tuf.api.metadata import Metadata, MetaFile, Timestamp

from tests.tuf_conformance.simulated import DAY, NOW, TOP, Client, Simulated

FIRST = [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
ALL_ONE = dict.fromkeys(TOP, 1)


def test_basic_refresh_requests(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    assert repo.asked == FIRST


def test_basic_refresh_trusted_data(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    for role in TOP:
        assert client.content(role) == repo.published[role][-1]


def test_implicit_refresh(repo: Simulated, client: Client) -> None:
    assert client.download("nothing of this name") == 1
    assert repo.asked == FIRST
    assert client.trusted == ALL_ONE


@pytest.mark.parametrize("damage", ["no version", "another's signature"])
def test_invalid_and_unsigned_initial_root(repo: Simulated, client: Client, damage: str) -> None:
    document = json.loads(repo.published["root"][0])
    if damage == "no version":
        del document["signed"]["version"]
    else:
        document["signatures"][0]["sig"] = "30" * 70
    client.trusted_root = json.dumps(document).encode()
    client.init()
    assert client.refresh() == 1
    assert repo.asked == []


@pytest.mark.parametrize(
    ("role", "trusted"),
    [
        ("root", {"root": 1}),
        ("timestamp", {"root": 2}),
        ("snapshot", {"root": 2, "timestamp": 2}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_unsigned_metadata(repo: Simulated, client: Client, role: str, trusted: dict[str, int]) -> None:
    repo.signers[role].pop()
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted == trusted


@pytest.mark.parametrize(
    ("role", "trusted"),
    [
        ("root", {"root": 1}),
        ("snapshot", {"root": 2, "timestamp": 2}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_url_and_metadata_version_mismatch(
    repo: Simulated, client: Client, role: str, trusted: dict[str, int]
) -> None:
    for name in ("root", "targets", "snapshot", "timestamp"):
        repo.publish(name, version=3 if name == role else None)
        if name == role and role != "root":  # What is above names the version of the URL.
            above = repo.timestamp.snapshot_meta if role == "snapshot" else repo.snapshot.meta["targets.json"]
            above.version = 2
    assert client.refresh() == 1
    assert client.trusted == trusted


def test_timestamp_content_changes(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    repo.timestamp.snapshot_meta.version = 100
    repo.published["timestamp"] = [repo.sealed("timestamp")]
    assert client.refresh() == 0
    assert repo.asked[-1] == ("timestamp", None)
    kept: Metadata[Timestamp] = Metadata.from_bytes(client.content("timestamp"))
    assert kept.signed.snapshot_meta.version == 1


def test_basic_metadata_hash_support(repo: Simulated, client: Client) -> None:
    repo.with_hashes = True
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    repo.publish("targets")
    repo.snapshot.meta["targets.json"].hashes = {"sha256": "46" * 32}
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert (client.trusted["snapshot"], client.trusted["targets"]) == (3, 2)


def test_new_targets_hash_mismatch_and_version_mismatch(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    repo.publish("targets")
    assert client.refresh() == 0, "what no snapshot names is not asked for"
    repo.snapshot.meta["targets.json"] = MetaFile(2, None, {"sha256": "00" * 32})
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted["targets"] == 1


def test_metadata_bytes_match(repo: Simulated, client: Client) -> None:
    repo.published["timestamp"][-1] += b" "
    assert client.refresh() == 0
    assert client.content("timestamp") == repo.published["timestamp"][-1]


def test_custom_fields(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    repo.root.unrecognized_fields["custom-field"] = "value"
    key = repo.root.roles["root"].keyids[0]
    repo.root.keys[key].unrecognized_fields["extra-field"] = {"a": 1, "b": [2]}
    repo.root.roles["root"].unrecognized_fields["another-field"] = "value"
    repo.publish("root")
    assert client.refresh() == 0
    assert client.trusted["root"] == 2


@pytest.mark.parametrize("value", ["md5", ["md5"]])
def test_deprecated_keyid_hash_algorithms(repo: Simulated, client: Client, value: object) -> None:
    repo.rotate("snapshot")
    key = repo.root.roles["snapshot"].keyids[0]
    repo.root.keys[key].unrecognized_fields["keyid_hash_algorithms"] = value
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert (client.trusted["root"], client.trusted["snapshot"]) == (2, 2)


def test_snapshot_404(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    repo.timestamp.snapshot_meta.version += 1
    repo.publish("timestamp")
    assert client.refresh() == 1
    assert repo.asked[-1] == ("snapshot", 2)
    assert client.trusted == {**ALL_ONE, "timestamp": 2}


def test_targets_404(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    repo.snapshot.meta["targets.json"].version += 1
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert repo.asked[-1] == ("targets", 2)
    assert client.trusted == {**ALL_ONE, "timestamp": 2, "snapshot": 2}


def test_timestamp_404(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    repo.published["timestamp"].clear()
    assert client.refresh() == 1
    assert repo.asked[-1] == ("timestamp", None)


def test_incorrect_metadata_type(repo: Simulated, client: Client) -> None:
    repo.add_key("snapshot", key=repo.signers["timestamp"][0])
    repo.snapshot.meta = {"snapshot.json": MetaFile(1)}
    repo.publish("root", "snapshot")
    repo.published["timestamp"].append(repo.published["snapshot"].pop())
    assert client.refresh() == 1
    assert client.trusted == {"root": 2}


def test_faketime(repo: Simulated, client: Client) -> None:
    repo.root.expires = NOW + 7 * DAY
    repo.publish("root")
    assert client.refresh() == 0
    client.now = NOW + 8 * DAY
    assert client.refresh() == 1


# --- test_expiration


def test_root_expired(repo: Simulated, client: Client) -> None:
    repo.publish("root")
    assert client.refresh() == 0
    repo.root.expires = NOW - DAY
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted == {**ALL_ONE, "root": 3}


def test_an_expired_root_on_the_way_is_no_obstacle(repo: Simulated, client: Client) -> None:
    repo.root.expires = NOW - DAY
    repo.publish("root")
    repo.root.expires = NOW + DAY
    repo.publish("root")
    assert client.refresh() == 0
    assert client.trusted["root"] == 3


@pytest.mark.parametrize(
    ("role", "trusted"),
    [
        ("timestamp", {"timestamp": 1, "snapshot": 1, "targets": 1}),
        ("snapshot", {"timestamp": 2, "snapshot": 1, "targets": 1}),
        ("targets", {"timestamp": 2, "snapshot": 2, "targets": 1}),
    ],
)
def test_timestamp_snapshot_and_targets_expired(
    repo: Simulated, client: Client, role: str, trusted: dict[str, int]
) -> None:
    assert client.refresh() == 0
    repo.signed[role].expires = NOW - 5 * DAY
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted == {"root": 1, **trusted}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_expired_local_metadata_updates(repo: Simulated, client: Client, role: str) -> None:
    repo.signed[role].expires = NOW + 7 * DAY
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    client.now = NOW + 18 * DAY
    assert client.refresh() == 1
    repo.signed[role].expires = NOW + 21 * DAY
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.trusted == {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 3}


def test_expired_local_timestamp_still_protects_from_rollback(repo: Simulated, client: Client) -> None:
    repo.timestamp.expires = NOW + 7 * DAY
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    client.now = NOW + 18 * DAY
    repo.timestamp.expires = NOW + 21 * DAY
    repo.publish("timestamp", version=1)
    assert client.refresh() == 1
    assert client.trusted["timestamp"] == 2
