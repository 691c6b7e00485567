"""What whoever took the server over may try; the agent's program refuses each, and the operator is told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from tuf.api.metadata import Root, Snapshot, Targets

from controlplane.packaging.downloads import Piece
from controlplane.trust.tuf import publishing
from controlplane.trust.tuf.state import read
from tests.integration.attacks.attacked_world import CHANNEL, Attacked, Pieces

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
PIECE = 64 * 1024


def sending(content: bytes) -> Pieces:
    """Send a file, piece after piece."""

    async def pieces(offset: int) -> AsyncGenerator[Piece, None]:
        for at in range(offset, len(content), PIECE):
            yield Piece(at, content[at : at + PIECE], len(content))

    return pieces


def without_end(total: int) -> Pieces:
    """Send bytes for as long as somebody takes them."""

    async def pieces(offset: int) -> AsyncGenerator[Piece, None]:
        while True:
            yield Piece(offset, b"x" * PIECE, total)
            offset += PIECE

    return pieces


def evidence(attack: Attacked, state: bytes) -> str:
    """The digest of the attestations that are released with the package."""
    released = read(Targets, state).signed.targets[f"{attack.released.path}.attestations.jsonl"]
    return released.hashes["sha256"]


async def test_without_an_attack_the_package_is_installed(attack: Attacked) -> None:
    await attack.is_installed()
    assert attack.installed()
    shown = await attack.fleetwright("packages", "deployments")
    assert "INSTALLED" in shown.out


# --- swapped


async def test_a_package_swapped_in_the_store_is_refused(attack: Attacked) -> None:
    content = attack.stored.read_bytes()
    attack.stored.write_bytes(content[:-9] + content[-9:].swapcase()[::-1])
    await attack.is_refused("WRONG_BYTES", "an operator must put it back")
    attack.stored.write_bytes(content)
    await attack.is_installed()


@pytest.mark.long
async def test_a_package_swapped_by_the_server_is_refused(attack: Attacked) -> None:
    content = attack.stored.read_bytes()
    attack.lies.bytes_of[attack.sha256] = sending(bytes(len(content)))
    await attack.is_refused("WRONG_BYTES", "do not use it")
    attack.lies.bytes_of.clear()
    await attack.is_installed()


@pytest.mark.long
async def test_a_longer_package_is_refused(attack: Attacked) -> None:
    attack.lies.bytes_of[attack.sha256] = sending(attack.stored.read_bytes() + b"more")
    await attack.is_refused("ENDLESS_DATA")


@pytest.mark.long
async def test_attestations_swapped_by_the_server_are_refused(attack: Attacked) -> None:
    state = await attack.state()
    attack.lies.bytes_of[evidence(attack, state.channels[CHANNEL])] = sending(b"{}\n")
    await attack.is_refused("WRONG_BYTES")


@pytest.mark.long
async def test_attestations_swapped_in_the_store_are_refused(attack: Attacked) -> None:
    digest = evidence(attack, (await attack.state()).channels[CHANNEL])
    stored = attack.stored.parents[1] / digest[:2] / digest
    stored.write_bytes(stored.read_bytes().replace(b"a", b"b"))
    await attack.is_refused("WRONG_BYTES", "an operator must put it back")


# --- by who has the keys of the server's channel too


async def test_other_bytes_released_under_the_same_path_are_refused(attack: Attacked) -> None:
    mallory = b"another package" * 99
    await attack.lie_of_release({attack.released.path: mallory})
    attack.lies.bytes_of[sha256(mallory).hexdigest()] = sending(mallory)
    await attack.is_refused("ANOTHER_PACKAGE", "do not trust the task")


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "code"), [("the verdict", "VERDICT_MISSING"), ("everything", "SIGNATURE_MISSING")]
)
async def test_a_release_without_its_evidence_is_refused(attack: Attacked, what: str, code: str) -> None:
    digest = evidence(attack, (await attack.state()).channels[CHANNEL])
    lines = (attack.stored.parents[1] / digest[:2] / digest).read_bytes().splitlines(keepends=True)
    kept = b"".join(line for line in lines if what == "the verdict" and not is_verdict(line))
    await attack.lie_of_release({f"{attack.released.path}.attestations.jsonl": kept})
    attack.lies.bytes_of[sha256(kept).hexdigest()] = sending(kept)
    await attack.is_refused(code)


def is_verdict(line: bytes) -> bool:
    return b"verification_summary" in base64.b64decode(json.loads(line)["payload"])


# --- rolled back


async def test_an_older_timestamp_is_refused(attack: Attacked) -> None:
    old = (await attack.state()).timestamp
    await attack.publish()
    await attack.is_installed()
    attack.lies.files["timestamp.json"] = old
    await attack.is_refused("METADATA_ROLLED_BACK", "timestamp.json")


@pytest.mark.long
async def test_a_channel_put_back_under_new_signatures_is_refused(attack: Attacked) -> None:
    old = (await attack.state()).channels[CHANNEL]
    await attack.publish_channel()
    await attack.is_installed()
    await attack.lie_of(CHANNEL, read(Targets, old).signed.version, old)
    await attack.is_refused("METADATA_ROLLED_BACK", CHANNEL)


# --- frozen and expired


@pytest.mark.long
async def test_metadata_that_stands_still_is_refused_when_its_time_is_over(attack: Attacked) -> None:
    end = datetime.now(UTC) + timedelta(seconds=25)
    await attack.lie_of_time(end)
    await attack.is_installed()
    await attack.publish()  # What the agent is not shown.
    await asyncio.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()))
    await attack.is_refused("METADATA_EXPIRED", "held back")


async def test_an_expired_timestamp_is_refused(attack: Attacked) -> None:
    await attack.lie_of_time(datetime.now(UTC) - timedelta(seconds=1))
    await attack.is_refused("METADATA_EXPIRED", "timestamp")


@pytest.mark.long
async def test_an_expired_channel_is_refused(attack: Attacked) -> None:
    channel = read(Targets, (await attack.state()).channels[CHANNEL])
    channel.signed.version += 1
    old = publishing.signed_by(channel, [attack.keys.channels[CHANNEL]], datetime.now(UTC) - DAY)
    await attack.lie_of(CHANNEL, channel.signed.version, old)
    await attack.is_refused("METADATA_EXPIRED", CHANNEL)


# --- mixed


async def test_a_snapshot_of_another_publication_is_refused(attack: Attacked) -> None:
    old = (await attack.state()).snapshot
    version = read(Snapshot, (await attack.publish()).snapshot).signed.version
    attack.lies.files[f"{version}.snapshot.json"] = old
    await attack.is_refused("METADATA_MIXED", "snapshot.json")


@pytest.mark.long
async def test_a_channel_of_another_publication_is_refused(attack: Attacked) -> None:
    old = (await attack.state()).channels[CHANNEL]
    version = read(Targets, (await attack.publish_channel()).channels[CHANNEL]).signed.version
    attack.lies.files[f"{version}.{CHANNEL}.json"] = old
    await attack.is_refused("METADATA_MIXED", CHANNEL)


# --- endless


@pytest.mark.parametrize("length", [100 * 1024, 5 * 1024 * 1024], ids=["a file", "more than a message"])
async def test_metadata_without_end_is_refused(attack: Attacked, length: int) -> None:
    attack.lies.files["timestamp.json"] = (await attack.state()).timestamp + b" " * length
    await attack.is_refused("ENDLESS_DATA", "timestamp.json")


@pytest.mark.long
async def test_a_package_without_end_is_refused(attack: Attacked) -> None:
    attack.lies.bytes_of[attack.sha256] = without_end(attack.stored.stat().st_size)
    await attack.is_refused("ENDLESS_DATA", "goes on beyond")


@pytest.mark.long
async def test_attestations_without_end_are_refused(attack: Attacked) -> None:
    state = await attack.state()
    attack.lies.bytes_of[evidence(attack, state.channels[CHANNEL])] = without_end(1 << 40)
    await attack.is_refused("ENDLESS_DATA")


# --- a signature too few


@pytest.mark.long
async def test_a_timestamp_that_nobody_signed_is_refused(attack: Attacked) -> None:
    document = json.loads((await attack.state()).timestamp)
    attack.lies.files["timestamp.json"] = json.dumps({**document, "signatures": []}).encode()
    await attack.is_refused("TOO_FEW_SIGNATURES", "timestamp.json")


async def test_targets_that_one_of_two_holders_signed_are_refused(attack: Attacked) -> None:
    targets = read(Targets, (await attack.state()).targets)
    targets.signed.version += 1
    forged = publishing.signed_by(targets, [attack.offline_key], datetime.now(UTC) + DAY)
    await attack.lie_of("targets", targets.signed.version, forged)
    await attack.is_refused("TOO_FEW_SIGNATURES", "targets.json")


async def test_a_root_that_the_servers_own_keys_signed_is_refused(attack: Attacked) -> None:
    root, keys = read(Root, (await attack.state()).roots[0]), attack.keys
    root.signed.version = 2
    root.signed.roles["root"].keyids = [keys.timestamp.key_id, keys.snapshot.key_id]
    forged = publishing.signed_by(root, [keys.timestamp, keys.snapshot], datetime.now(UTC) + DAY)
    attack.lies.files["2.root.json"] = forged
    await attack.is_refused("TOO_FEW_SIGNATURES", "2.root.json")


@pytest.mark.long
async def test_the_same_signature_twice_is_one(attack: Attacked) -> None:
    targets = read(Targets, (await attack.state()).targets)
    targets.signed.version += 1
    document = json.loads(publishing.signed_by(targets, [attack.offline_key], datetime.now(UTC) + DAY))
    document["signatures"] *= 2
    await attack.lie_of("targets", targets.signed.version, json.dumps(document).encode())
    await attack.is_refused("METADATA_MALFORMED", "targets.json")
