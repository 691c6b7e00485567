"""What is decided offline, on real databases: taken in while everything runs, or refused with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import rmtree

import pytest
import pytest_asyncio
from fleetwright.verify.keys import KEYS_TARGET, Purpose, parse_keys

from controlplane.errors import FailedPrecondition, InvalidArgument
from controlplane.packaging.delivered_root import DeliveredRoot
from controlplane.packaging.offline_roles import Documents, OfflineRoles
from controlplane.packaging.releasing import Releases
from controlplane.packaging.store import metadata
from controlplane.storage.location import Location
from controlplane.trust.keys import SigningKey, load_key
from controlplane.trust.tuf.roles import RoleKeys
from controlplane.trust.tuf.rotation import add_signature, draft_root, draft_targets
from tests.contracts.releases_world import SHA256, World, made_once, world
from tests.unit.verify.evidence_world import NOW

YEAR = timedelta(days=365)


@pytest_asyncio.fixture
async def made(location: Location, tmp_path: Path) -> AsyncIterator[World]:
    async with world(location, tmp_path) as opened:
        yield opened


def offline(role: str) -> list[SigningKey]:
    folder = made_once()[0].parent / "offline"
    return [load_key(folder / f"{role}-{number}.pem") for number in (1, 2)]


def signed(document: bytes, *keys: SigningKey) -> bytes:
    for key in keys:
        document = add_signature(document, key)
    return document


def room(made: World, releases: Releases | None = None) -> OfflineRoles:
    return OfflineRoles(releases or made.releases, made.clock)


async def longer_root(made: World) -> bytes:
    current = (await room(made).standing()).root
    return signed(draft_root(current, {}, made.clock.now() + YEAR), *offline("root"))


async def refusal(made: World, **documents: bytes) -> str:
    with pytest.raises(FailedPrecondition) as error:
        await room(made).install(Documents(**documents))
    assert error.value.reason == "TRUST_REFUSED"
    return error.value.message


async def versions(made: World) -> dict[str, int]:
    return {one.role: one.version for one in (await room(made).standing()).roles}


async def test_what_stands_can_be_seen(made: World) -> None:
    found = await room(made).standing()
    assert [one.role for one in found.roles] == [
        "root", "targets", "snapshot", "timestamp", "stable", "beta",
    ]  # fmt: skip
    assert [one.offline for one in found.roles] == [True, True, False, False, False, False]
    assert (found.roles[0].threshold, len(found.roles[0].key_ids)) == (2, 3)
    assert parse_keys(found.key_document).attesters
    made.clock.time = NOW + timedelta(days=330)
    assert any(
        "sign a new version with the offline keys" in text for text in (await room(made).standing()).warnings
    )


async def test_a_root_is_taken_in_and_agents_follow_it(made: World, tmp_path: Path) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    root = await longer_root(made)
    assert (await room(made).install(Documents(root=root), validate_only=True))[0] is False
    assert (await versions(made))["root"] == 1
    changed, roles = await room(made).install(Documents(root=root))
    assert (changed, roles[0].version) == (True, 2)
    assert await made.releases.metadata("2.root.json") == root
    assert (await room(made).install(Documents(root=root)))[0] is False
    other = made.process()
    assert (await other.repository.state()).roots[-1] == root


async def test_processes_that_take_in_the_same_at_once_do_it_once(made: World) -> None:
    root = await longer_root(made)
    rooms = [room(made, made.process()) for _ in range(4)]
    ended = await asyncio.gather(*(one.install(Documents(root=root)) for one in rooms))
    assert any(changed for changed, _ in ended)
    assert (await versions(made))["root"] == 2
    assert (await versions(made))["snapshot"] == 2


async def test_a_root_with_a_signature_too_few_is_refused_by_what_it_lacks(made: World) -> None:
    current = (await room(made).standing()).root
    root = signed(draft_root(current, {}, NOW + YEAR), offline("root")[0])
    said = await refusal(made, root=root)
    assert "by the keys of the root before it: 1 of 2 signatures: sign it with 1 of" in said


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ({"root": b"{}"}, "the root document"),
        ({"targets": b"\xff"}, "targets"),
        ({"root": made_once()[1].state.targets}, "it is one of targets"),
        ({"targets": made_once()[1].state.timestamp}, "targets"),
    ],
)
async def test_what_is_no_document_is_refused(made: World, documents: dict[str, bytes], words: str) -> None:
    assert words in await refusal(made, **documents)
    assert (await versions(made))["timestamp"] == 1


async def test_an_ended_root_and_one_that_jumps_are_refused(made: World) -> None:
    current = (await room(made).standing()).root
    ended = signed(draft_root(current, {}, NOW - timedelta(days=1)), *offline("root"))
    assert "it has ended" in await refusal(made, root=ended)
    jump = draft_root(draft_root(current, {}, NOW + YEAR), {}, NOW + YEAR)
    assert "version 3, where 2 comes next" in await refusal(made, root=signed(jump, *offline("root")))


async def test_nothing_at_all_is_refused(made: World) -> None:
    with pytest.raises(InvalidArgument):
        await room(made).install(Documents())


async def test_a_server_without_keys_takes_nothing_in(made: World) -> None:
    root = await longer_root(made)
    rmtree(made.folder / "release-trust")
    with pytest.raises(FailedPrecondition) as error:
        await room(made, made.process()).install(Documents(root=root))
    assert error.value.reason == "TRUST_NOT_SET_UP"


async def test_other_keys_of_targets_come_with_targets_that_they_signed(made: World) -> None:
    fresh = [SigningKey.generate() for _ in range(2)]
    before = await room(made).standing()
    roles = {"targets": RoleKeys(tuple(key.public for key in fresh), 2)}
    root = signed(draft_root(before.root, roles, NOW + YEAR), *offline("root"))
    assert "the new root gives it other keys" in await refusal(made, root=root)
    draft = draft_targets(before.targets, {}, None, NOW + YEAR)
    old = signed(draft, *offline("targets"))
    assert "role targets: 0 of 2" in await refusal(made, root=root, targets=old)
    await room(made).install(Documents(root=root, targets=signed(draft, *fresh)))
    found = await versions(made)
    assert (found["root"], found["targets"]) == (2, 2)


async def test_attesters_are_renewed_with_their_document(made: World) -> None:
    before = await room(made).standing()
    keys = parse_keys(before.key_document)
    longer = replace(
        keys,
        version=keys.version + 1,
        attesters=tuple(replace(one, expires=one.expires + YEAR) for one in keys.attesters),
    )
    document = longer.to_bytes()
    targets = signed(draft_targets(before.targets, {}, document, NOW + YEAR), *offline("targets"))
    assert "bring that document too" in (await refusal(made, targets=targets))
    await room(made).install(Documents(targets=targets, key_document=document))
    assert await made.process().repository.key_document() == document
    await made.add()
    await made.releases.publish(SHA256)
    assert KEYS_TARGET not in await made.releases.channels()


async def test_attesters_without_this_servers_own_are_refused(made: World) -> None:
    before = await room(made).standing()
    keys = parse_keys(before.key_document)
    others = [one for one in keys.attesters if Purpose.SCAN not in one.purposes]
    document = replace(keys, attesters=tuple(others)).to_bytes()
    targets = signed(draft_targets(before.targets, {}, document, NOW + YEAR), *offline("targets"))
    said = await refusal(made, targets=targets, key_document=document)
    assert "with which this server attests scan" in said


async def test_stolen_online_keys_are_replaced_while_processes_run(made: World) -> None:
    await made.add()
    other = made.process()
    await other.publish(SHA256)
    key = SigningKey.generate()
    before = await room(made).standing()
    roles = {role: RoleKeys((key.public,)) for role in ("snapshot", "timestamp")}
    root = signed(draft_root(before.root, roles, NOW + YEAR), *offline("root"))
    assert "role snapshot" in await refusal(made, root=root)
    key.write(made.folder / "release-trust" / "keys" / "online-2.pem")
    await room(made).install(Documents(root=root))
    await other.withdraw(SHA256, "a process that read its keys before goes on with the new one")
    made.clock.time = NOW + timedelta(hours=20)
    assert await other.refresh()
    assert (await other.repository.state()).root.roles["timestamp"].keyids == [key.key_id]


async def test_a_channel_is_added(made: World) -> None:
    key = SigningKey.generate()
    before = await room(made).standing()
    channels = {"canary": RoleKeys((key.public,))}
    targets = signed(draft_targets(before.targets, channels, None, NOW + YEAR), *offline("targets"))
    assert "channel canary" in await refusal(made, targets=targets)
    key.write(made.folder / "release-trust" / "keys" / "channel-canary.pem")
    await room(made).install(Documents(targets=targets))
    assert await made.process().channels() == ["stable", "beta", "canary"]
    await made.add(channel="canary")
    await made.process().publish(SHA256)


# --- what hosts get when they enrol


def delivered(made: World, folder: str = "release-trust") -> DeliveredRoot:
    return DeliveredRoot(made.database, made.folder / folder)


async def test_a_host_gets_the_root_of_the_folder_before_anything_was_released(made: World) -> None:
    assert await delivered(made).current() == made_once()[1].trusted_root
    assert await delivered(made, "nowhere").current() == b""


async def test_another_machine_gives_the_root_of_the_database(made: World) -> None:
    await made.releases.repository.state()
    assert await delivered(made, "nowhere").current() == made_once()[1].trusted_root


async def test_a_host_gets_the_newest_root_as_soon_as_it_is_in_force(made: World) -> None:
    here, there = delivered(made), delivered(made, "nowhere")
    assert await here.current() == made_once()[1].trusted_root
    for _ in range(2):
        root = await longer_root(made)
        await room(made).install(Documents(root=root))
        assert [await one.current() for one in (here, there, delivered(made))] == [root] * 3


async def test_a_root_of_the_database_that_the_keys_did_not_sign_is_given_to_nobody(made: World) -> None:
    forged = draft_root((await room(made).standing()).root, {}, NOW + YEAR)
    await plant(made, "2.root.json", signed(forged, SigningKey.generate()))
    assert await delivered(made).current() == b""


async def test_a_folder_of_another_repository_gives_nothing(made: World) -> None:
    await made.releases.repository.state()
    (made.folder / "other").mkdir()
    (made.folder / "other" / "root.json").write_bytes(await longer_root(made))
    assert await delivered(made, "other").current() == b""


@pytest.mark.parametrize("content", [b"", b"{", b"x" * (512 * 1024 + 1)])
async def test_a_damaged_file_gives_nothing_and_stops_no_enrolment(made: World, content: bytes) -> None:
    (made.folder / "release-trust" / "root.json").write_bytes(content)
    assert await delivered(made).current() == b""


async def plant(made: World, name: str, content: bytes) -> None:
    async with made.database.unit_of_work() as work:
        await metadata.add_files(work, {name: content}, 1)
