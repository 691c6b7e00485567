"""The suite's cases of keys, thresholds and rotations, by their names there (test_keys,
test_updater_key_rotations).
"""

from __future__ import annotations

import json

import pytest
from securesystemslib.signer import CryptoSigner

from tests.tuf_conformance.simulated import Client, Simulated, signer

OTHERS = 1_000
"""Numbers of keys that no repository uses by itself."""


def keys(numbers: list[int]) -> list[CryptoSigner]:
    return [signer(OTHERS + number) for number in numbers]


def with_snapshot_keys(repo: Simulated, count: int, threshold: int, sign: int) -> None:
    """Let ``count`` keys sign the snapshot, of which ``threshold`` are needed and ``sign`` do."""
    found = keys(list(range(count)))
    repo.set_keys("snapshot", found, threshold, found[:sign])
    repo.publish("root", "snapshot", "timestamp")


@pytest.mark.parametrize(("threshold", "sign", "status"), [(3, 3, 0), (3, 4, 0), (3, 2, 1), (5, 4, 1)])
def test_snapshot_threshold(repo: Simulated, client: Client, threshold: int, sign: int, status: int) -> None:
    assert client.refresh() == 0
    with_snapshot_keys(repo, 5, threshold, sign)
    assert client.refresh() == status
    assert client.trusted["root"] == 2
    assert client.trusted["snapshot"] == 2 - status


def test_root_has_keys_but_not_snapshot(repo: Simulated, client: Client) -> None:
    with_snapshot_keys(repo, 4, 3, 4)
    assert client.refresh() == 0
    with_snapshot_keys(repo, 6, 5, 4)
    assert client.refresh() == 1
    assert (client.trusted["root"], client.trusted["snapshot"]) == (3, 2)


def test_duplicate_sig_keyids(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    with_snapshot_keys(repo, 2, 2, 1)
    document = json.loads(repo.published["snapshot"][-1])
    document["signatures"] *= 2
    repo.published["snapshot"][-1] = json.dumps(document).encode()
    assert client.refresh() == 1
    assert client.trusted["snapshot"] == 1


def test_duplicate_keys_root(repo: Simulated, client: Client) -> None:
    assert client.refresh() == 0
    found = keys([0])
    repo.set_keys("snapshot", found, 2, found)
    repo.root.roles["snapshot"].keyids *= 9
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted["snapshot"] == 1


@pytest.mark.parametrize(
    "made",
    [
        CryptoSigner.generate_ed25519,
        CryptoSigner.generate_ecdsa,
        CryptoSigner.generate_rsa,
        lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"),
    ],
    ids=["ed25519", "ecdsa-sha2-nistp256", "rsassa-pss-sha256", "rsa-pkcs1v15-sha256"],
)
def test_keytype_and_scheme(repo: Simulated, client: Client, made: object) -> None:
    key = made()  # type: ignore[operator]  # one of those above
    for role in ("timestamp", "snapshot"):
        repo.set_keys(role, [key], 1, [key])
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 0
    repo.signers["timestamp"] = keys([0])
    repo.publish("timestamp")
    assert client.refresh() == 1


ROOTS = {
    "1-of-1-key-rotation": [([1], 1, [1]), ([2], 1, [2, 1]), ([2], 1, [2])],
    "1-of-1-key-rotation-unused-signatures": [
        ([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4]), ([2], 1, [3, 2, 4]),
    ],
    "3-of-5-sign-with-different-keycombos": [
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 2, 3, 4], 3, [0, 4, 1]), ([0, 1, 2, 3, 4], 3, [0, 1, 3]),
    ],
    "3-of-5-one-key-rotated": [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])],
    "3-of-5-one-key-rotated-with-intermediate-step": [
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4, 5]), ([0, 1, 3, 4, 5], 3, [0, 4, 5]),
    ],
    "3-of-5-all-keys-rotated-with-intermediate-step": [
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]),
        ([5, 6, 7, 8, 9], 3, [5, 6, 7]),
    ],
    "1-of-3-threshold-increase-to-2-of-3": [([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])],
    "2-of-3-threshold-decrease-to-1-of-3": [
        ([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), ([1, 2, 3], 1, [1]),
    ],
    "1-of-2-threshold-increase-to-2-of-2": [([1], 1, [1]), ([1, 2], 2, [1, 2])],
}  # fmt: skip
"""Each root by the keys that may sign it, how many are needed, and which did."""

REFUSED_ROOTS = {
    "1-of-1-key-rotation-fail-not-signed-with-old-key": [([1], 1, [1]), ([2], 1, [2, 3, 4])],
    "1-of-1-key-rotation-fail-not-signed-with-new-key": [([1], 1, [1]), ([2], 1, [1, 3, 4])],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys": [
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4]),
    ],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys": [
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5]),
    ],
    "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": [
        ([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2]),
    ],
    "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-reached": [
        ([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1]),
    ],
}  # fmt: skip

Versions = list[tuple[list[int], int, list[int]]]


def rotated(repo: Simulated, client: Client, versions: Versions) -> int:
    """Publish these roots in the place of all others, begin with the first, and refresh."""
    repo.published["root"].clear()
    for number, (may_sign, threshold, sign) in enumerate(versions, 1):
        repo.set_keys("root", keys(may_sign), threshold, keys(sign))
        repo.publish("root", version=number)
    client.trusted_root = repo.published["root"][0]
    assert client.init() == 0
    return client.refresh()


@pytest.mark.parametrize("versions", ROOTS.values(), ids=ROOTS)
def test_root_rotation(repo: Simulated, client: Client, versions: Versions) -> None:
    assert rotated(repo, client, versions) == 0
    assert client.content("root") == repo.published["root"][-1]


@pytest.mark.parametrize("versions", REFUSED_ROOTS.values(), ids=REFUSED_ROOTS)
def test_root_rotation_that_fails(repo: Simulated, client: Client, versions: Versions) -> None:
    assert rotated(repo, client, versions) == 1
    assert client.content("root") == repo.published["root"][-2]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize(
    ("may_sign", "threshold", "sign", "status"),
    [
        ([2], 1, [2], 0),
        ([1], 1, [3, 1, 4], 0),
        ([2], 1, [1, 3, 4], 1),
        ([0, 1, 3, 4, 5], 3, [0, 2, 4], 1),
        ([0, 1, 3, 4, 5], 3, [0, 4], 1),
        ([0, 1, 2, 3, 4], 3, [0, 2, 4], 0),
        ([0, 1, 2, 3, 4], 3, [0, 4, 1], 0),
        ([0, 1, 2, 3, 4], 3, [0, 1, 3], 0),
        ([0, 1, 2, 3, 4], 3, [1, 2, 3], 0),
        ([0, 1, 2, 3, 4], 3, [2, 3, 4], 0),
    ],
)
def test_non_root_rotations(
    repo: Simulated,
    client: Client,
    role: str,
    may_sign: list[int],
    threshold: int,
    sign: list[int],
    status: int,
) -> None:
    assert client.refresh() == 0
    repo.set_keys(role, keys(may_sign), threshold, keys(sign))
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == status
    assert client.trusted[role] == 2 - status
    assert (client.content(role) == repo.published[role][-1]) == (status == 0)
