"""Releases on real databases: the metadata agrees with what was decided, whoever asks, how often and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import pytest_asyncio
from fleetwright.verify.evidence import attestations_path
from fleetwright.verify.keys import KEYS_TARGET
from tuf.api.metadata import Snapshot, Timestamp

from controlplane.errors import FailedPrecondition, NotFound, Unavailable
from controlplane.packaging import repository
from controlplane.packaging.releasing import Releases
from controlplane.packaging.rules import Decision, PipelineState
from controlplane.packaging.store import metadata, releases
from controlplane.packaging.store.releases import Candidate
from controlplane.storage.location import Location
from controlplane.trust.tuf.ceremony import initialise
from controlplane.trust.tuf.publishing import released
from controlplane.trust.tuf.roles import Expiries, Thresholds
from controlplane.trust.tuf.state import read
from tests.contracts.releases_world import PACKAGE, PATH, SHA256, World, made_once, world

EVIDENCE = attestations_path(PATH)


@pytest_asyncio.fixture
async def made(location: Location, tmp_path: Path) -> AsyncIterator[World]:
    async with world(location, tmp_path) as opened:
        yield opened


async def released_in(made: World, channel: str = "stable") -> set[str]:
    state = await made.process().repository.state()
    return set(released(state, channel))


async def shown(made: World, sha256: str = SHA256) -> Candidate:
    async with made.database.reading() as connection:
        found = await releases.find(connection, sha256)
    assert found is not None
    return found


async def version(releases: Releases, role: str = "timestamp") -> int:
    return (await releases.repository.state()).versions[role]


async def test_a_package_is_released_with_its_attestations(made: World) -> None:
    await made.add()
    assert not await made.releases.released(SHA256)
    await made.releases.publish(SHA256)
    assert await released_in(made) == {PATH, EVIDENCE}
    found = await shown(made)
    assert (found.channel, found.target_path) == ("stable", PATH)
    assert await made.releases.released(SHA256)
    assert all([await made.releases.released(target.sha256) for target in found.live])


async def test_publishing_again_changes_nothing(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    before = await version(made.releases)
    await made.releases.publish(SHA256)
    await made.process().publish(SHA256)
    assert await version(made.releases) == before


async def test_what_was_not_judged_or_refused_is_not_released(made: World) -> None:
    for decision in (Decision.UNJUDGED, Decision.FAIL):
        sha256 = await made.add(decision.name.encode() * 9, decision=decision)
        with pytest.raises(FailedPrecondition, match="policy does not let"):
            await made.releases.publish(sha256)
        assert not await made.releases.released(sha256)
    with pytest.raises(NotFound, match="packages/"):
        await made.releases.publish("f" * 64)
    assert await released_in(made) == set()


async def test_a_package_under_an_exception_is_released(made: World) -> None:
    await made.add(decision=Decision.EXCEPTION)
    await made.releases.publish(SHA256)
    assert await made.releases.released(SHA256)


async def test_a_decision_against_a_package_stops_its_bytes_before_it_is_withdrawn(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    attestations = [target.sha256 for target in (await shown(made)).live if target.evidence]
    await made.decide(Decision.FAIL)
    assert not await made.releases.released(SHA256)
    assert not await made.releases.released(attestations[0])


async def test_a_package_is_withdrawn_and_comes_back(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    await made.decide(Decision.FAIL)
    await made.releases.withdraw(SHA256, "CVE-2029-1 is critical")
    await made.releases.withdraw(SHA256, "CVE-2029-1 is critical")
    assert await released_in(made) == set()
    assert (await shown(made)).target_path == ""
    await made.decide(Decision.EXCEPTION)
    await made.releases.publish(SHA256)
    assert await released_in(made) == {PATH, EVIDENCE}


async def test_a_withdrawal_that_comes_late_withdraws_nothing(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    await made.releases.withdraw(SHA256, "was decided before it was decided again")
    assert await made.releases.released(SHA256)


async def test_withdrawing_what_was_never_released_is_no_error(made: World) -> None:
    await made.releases.withdraw("f" * 64, "unknown")
    await made.add(decision=Decision.FAIL)
    await made.releases.withdraw(SHA256, "refused")


async def test_new_attestations_take_the_place_of_the_old_ones(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    [before] = [target.sha256 for target in (await shown(made)).live if target.evidence]
    made.clock.advance(60)
    await made.attest()
    await made.releases.publish(SHA256)
    [after] = [target.sha256 for target in (await shown(made)).live if target.evidence]
    assert after != before
    assert not await made.releases.released(before)
    assert not await made.blobs.has(before), "nobody can ask for it any more"
    assert await made.releases.released(SHA256)


async def test_attestations_that_agents_would_refuse_are_not_released(made: World) -> None:
    await made.add()
    await made.attest(expires=made.clock.now() - timedelta(minutes=1))
    with pytest.raises(FailedPrecondition, match="agents would refuse its attestations: verdict: it ended"):
        await made.releases.publish(SHA256)
    assert await released_in(made) == set()


async def test_bytes_that_were_swapped_or_lost_in_the_store_are_not_released(made: World) -> None:
    await made.add(stored=False)
    with pytest.raises(Unavailable, match="gone or damaged"):
        await made.releases.publish(SHA256)
    await made.put(PACKAGE)
    path = made.folder / "blobs" / "sha256" / SHA256[:2] / SHA256
    path.write_bytes(PACKAGE.swapcase())
    with pytest.raises(Unavailable, match="gone or damaged"):
        await made.releases.publish(SHA256)
    assert await released_in(made) == set()


async def test_other_bytes_never_get_the_path_of_released_ones(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    other = await made.add(b"other bytes" * 9)
    with pytest.raises(FailedPrecondition, match="give other bytes another version"):
        await made.releases.publish(other)
    await made.decide(Decision.FAIL)
    await made.releases.withdraw(SHA256, "bad")
    with pytest.raises(FailedPrecondition, match="which was withdrawn: give other bytes another version"):
        await made.releases.publish(other)
    assert not await made.releases.released(other)


async def test_a_channel_that_is_not_there_is_named(made: World) -> None:
    await made.add(channel="nightly")
    with pytest.raises(FailedPrecondition, match="channel 'nightly': unknown: there are stable, beta"):
        await made.releases.publish(SHA256)
    assert await made.releases.channels() == ["stable", "beta"]


async def test_the_same_bytes_may_be_in_two_channels(made: World) -> None:
    await made.add(channel="beta")
    await made.releases.publish(SHA256)
    done = await made.releases.release(SHA256, "stable", "curl-8.1.deb")
    assert (done.channel, done.target_path) == ("stable", PATH)
    assert done.versions["timestamp"] == await version(made.releases)
    assert (await shown(made)).target_path == PATH
    await made.releases.publish(SHA256)
    assert await released_in(made) == {PATH, EVIDENCE}
    assert len(await released_in(made, "beta")) == 2
    await made.decide(Decision.FAIL)
    await made.releases.withdraw(SHA256, "bad")
    assert await released_in(made) == await released_in(made, "beta") == set()


async def test_names_of_other_ecosystems_become_paths_of_their_own(made: World) -> None:
    paths = []
    for number, name in enumerate(("@acme/tool", "acme/tool", "acme:tool")):
        sha256 = await made.add(bytes([number]) * 99, name=name, file_name=f"{name}-1.tar.gz")
        await made.releases.publish(sha256)
        paths.append((await shown(made, sha256)).target_path)
    assert len(set(paths)) == 3
    assert all(path.startswith("stable/") and path.count("/") == 2 for path in paths)


async def test_two_processes_never_publish_one_version_twice(made: World) -> None:
    digests = [
        await made.add(bytes([number]) * 50, name=f"n{number}", file_name=f"n{number}.deb")
        for number in range(8)
    ]
    processes = [made.process(), made.process(), made.process()]
    await asyncio.gather(
        *(processes[number % 3].publish(sha256) for number, sha256 in enumerate(digests * 2))
    )
    assert len(await released_in(made)) == 16
    assert await version(made.releases) == 1 + 8
    state = await made.releases.repository.state()
    stamp = read(Timestamp, state.timestamp).signed
    assert stamp.snapshot_meta.version == read(Snapshot, state.snapshot).signed.version == 9


async def test_a_decision_that_comes_while_it_is_published_stands(made: World) -> None:
    await made.add()
    change = made.releases.repository.change

    async def slow(make: repository.Next, write: repository.Write) -> object:
        await made.decide(Decision.FAIL)
        return await change(make, write)

    made.releases.repository.change = slow  # type: ignore[method-assign, assignment] # another process comes between
    await made.releases.publish(SHA256)
    assert await released_in(made) == set()
    assert not await made.releases.released(SHA256)


async def test_reconciling_mends_what_a_crash_left(made: World) -> None:
    await made.add()
    refused = await made.add(b"refused" * 9, name="bad", file_name="bad.deb")
    running = await made.add(b"running" * 9, name="run", file_name="run.deb", state=PipelineState.RUNNING)
    await made.releases.publish(refused)
    await made.decide(Decision.FAIL, refused)
    assert await made.releases.reconcile() == 2
    assert await made.releases.released(SHA256)
    assert await released_in(made) == {PATH, EVIDENCE}
    assert not await made.releases.released(running), "its own pipeline does that"
    assert await made.releases.reconcile() == 0
    made.clock.advance(60)
    await made.attest()
    assert await made.releases.reconcile() == 1, "it was judged again"
    assert await made.releases.reconcile() == 0


async def test_one_package_that_cannot_be_released_holds_no_other_up(made: World) -> None:
    await made.add(b"broken" * 9, name="broken", channel="nightly")
    await made.add()
    assert await made.releases.reconcile() == 1
    assert await made.releases.released(SHA256)


async def test_what_ends_soon_is_signed_again_and_the_old_is_thrown_away(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    assert await made.releases.refresh() is False
    made.clock.advance(17 * 3600)
    assert await made.releases.refresh() is True
    assert await version(made.releases, "snapshot") == 2
    made.clock.advance(6 * 24 * 3600)
    assert await made.releases.refresh() is True
    assert (await version(made.releases, "snapshot"), await version(made.releases)) == (3, 4)
    async with made.database.reading() as connection:
        assert await metadata.find_file(connection, "1.snapshot.json") is None
        assert await metadata.find_file(connection, "1.root.json") is not None
        assert await metadata.find_file(connection, "3.snapshot.json") is not None


async def test_what_people_have_to_sign_soon_is_said(made: World) -> None:
    assert await made.releases.warnings() == []
    made.clock.advance(310 * 24 * 3600)
    await made.releases.refresh()
    roles = {warning.role: warning.remedy for warning in await made.releases.warnings()}
    assert roles == dict.fromkeys(("root", "targets"), "sign a new version with the offline keys")


async def test_the_first_metadata_is_that_of_the_ceremony(made: World) -> None:
    online = made_once()[1]
    assert await made.releases.metadata("1.root.json") == online.trusted_root
    assert await made.releases.metadata("timestamp.json") == online.state.timestamp
    assert await made.releases.repository.key_document() == online.key_document
    async with made.database.reading() as connection:
        document = await metadata.target_under(connection, KEYS_TARGET)
    assert document is not None
    assert await made.releases.released(document.sha256)
    with pytest.raises(NotFound, match=r"the repository has no 2\.root\.json"):
        await made.releases.metadata("2.root.json")


@pytest_asyncio.fixture
async def untrusted(location: Location, tmp_path: Path) -> AsyncIterator[World]:
    async with world(location, tmp_path, trust=False) as opened:
        yield opened


async def test_without_trust_nothing_is_released_and_the_remedy_is_named(untrusted: World) -> None:
    await untrusted.add()
    for call in (
        untrusted.releases.publish(SHA256),
        untrusted.releases.metadata("timestamp.json"),
        untrusted.releases.channels(),
    ):
        with pytest.raises(FailedPrecondition, match="fleetwright trust init") as refused:
            await call
        assert refused.value.reason == "TRUST_NOT_SET_UP"
    assert await untrusted.releases.refresh() is False
    assert await untrusted.releases.reconcile() == 0


async def test_trust_may_be_set_up_while_the_server_runs(untrusted: World) -> None:
    await untrusted.add()
    with pytest.raises(FailedPrecondition):
        await untrusted.releases.publish(SHA256)
    copytree(made_once()[0], untrusted.folder / "release-trust")
    await untrusted.releases.publish(SHA256)
    assert await untrusted.releases.released(SHA256)


async def test_a_process_without_keys_serves_what_others_released(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    gateway = made.process(made.folder / "nothing")
    assert await gateway.metadata("timestamp.json") == await made.releases.metadata("timestamp.json")
    assert await gateway.released(SHA256)
    assert await gateway.reconcile() == 0
    with pytest.raises(FailedPrecondition, match="not here"):
        await gateway.refresh()


async def test_keys_of_another_repository_release_nothing(made: World, tmp_path: Path) -> None:
    await made.add()
    await made.releases.repository.state()
    rmtree(made.folder / "release-trust")
    initialise(
        tmp_path / "other-offline",
        made.folder / "release-trust",
        now=made.clock.now(),
        thresholds=Thresholds(1, 1, 1, 1),
        expiries=Expiries(),
        channels=["stable"],
    )
    with pytest.raises(FailedPrecondition, match="of another repository"):
        await made.process().publish(SHA256)


async def test_a_channel_that_is_full_is_said_before_agents_find_out(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made.add()
    monkeypatch.setattr(repository, "LARGEST_FILE", 500)
    with pytest.raises(FailedPrecondition, match="withdraw old packages from the channel"):
        await made.releases.publish(SHA256)
    assert await released_in(made) == set()
