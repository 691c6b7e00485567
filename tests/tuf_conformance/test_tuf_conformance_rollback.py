"""The suite's cases of versions that go back, by their names there (test_rollback)."""

from __future__ import annotations

import pytest

from tests.tuf_conformance.simulated import Client, Simulated


def test_simple_snapshot_rollback(repo: Simulated, client: Client) -> None:
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    repo.published["snapshot"][-1] = repo.published["snapshot"][0]
    assert client.refresh() == 0, "the client has what the timestamp names"
    assert client.trusted["snapshot"] == 2
    assert repo.asked[-1] == ("timestamp", None)


def test_new_timestamp_version_rollback(repo: Simulated, client: Client) -> None:
    repo.publish("timestamp")
    assert client.refresh() == 0
    repo.publish("timestamp", version=1)
    assert client.refresh() == 1
    assert client.trusted["timestamp"] == 2
    assert repo.asked[-1] == ("timestamp", None)


@pytest.mark.parametrize("with_hashes", [False, True], ids=["basic", "with hashes"])
def test_snapshot_rollback(repo: Simulated, client: Client, with_hashes: bool) -> None:
    repo.with_hashes = with_hashes
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    repo.publish("snapshot", version=1)
    repo.publish("timestamp")
    assert client.refresh() == 1
    assert (client.trusted["timestamp"], client.trusted["snapshot"]) == (2, 2)
    assert repo.asked[-1] == ("timestamp", None)


@pytest.mark.parametrize("with_hashes", [False, True], ids=["basic", "with hashes"])
def test_targets_rollback(repo: Simulated, client: Client, with_hashes: bool) -> None:
    repo.with_hashes = with_hashes
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    repo.publish("targets", version=1)
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert (client.trusted["timestamp"], client.trusted["snapshot"], client.trusted["targets"]) == (3, 2, 2)


def test_new_snapshot_version_mismatch(repo: Simulated, client: Client) -> None:
    repo.publish("snapshot", version=2)
    repo.published["snapshot"] = repo.published["snapshot"][1:]
    repo.timestamp.snapshot_meta.version = 1
    repo.publish("timestamp", version=1)
    assert client.refresh() == 1
    assert client.trusted == {"root": 1, "timestamp": 1}
    assert repo.asked[-1] == ("snapshot", 1)


def test_a_role_that_the_snapshot_forgets(repo: Simulated, client: Client) -> None:
    repo.delegate("targets", "A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    del repo.snapshot.meta["A.json"]
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted["snapshot"] == 2


def test_new_timestamp_fast_forward_recovery(repo: Simulated, client: Client) -> None:
    repo.publish("timestamp", version=100)
    assert client.refresh() == 0
    repo.rotate("timestamp")
    repo.publish("root")
    repo.publish("timestamp", version=1)
    assert client.refresh() == 0
    assert client.trusted["timestamp"] == 1


def test_new_snapshot_fast_forward_recovery(repo: Simulated, client: Client) -> None:
    repo.published["snapshot"] *= 999
    repo.publish("snapshot", version=1_000)
    repo.publish("timestamp")
    assert client.refresh() == 0
    assert client.trusted["snapshot"] == 1_000
    repo.rotate("snapshot")
    repo.rotate("timestamp")
    repo.publish("root")
    repo.published["snapshot"].clear()
    repo.publish("snapshot", version=1)
    repo.publish("timestamp")
    assert client.refresh() == 0
    assert client.trusted["snapshot"] == 1


def test_new_targets_fast_forward_recovery(repo: Simulated, client: Client) -> None:
    repo.published["targets"] *= 99
    repo.publish("targets", version=100)
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.trusted["targets"] == 100
    repo.rotate("snapshot")
    repo.publish("root")
    repo.published["targets"].clear()
    repo.publish("targets", version=1)
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.trusted["targets"] == 1
