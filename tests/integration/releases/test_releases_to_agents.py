"""What agents get over AgentService, and what they refuse of a server, or of who stands between."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from fleetwright.verify.errors import (
    EndlessData,
    Expired,
    FetchFailed,
    MixAndMatch,
    NotFound,
    Rollback,
    TooFewSignatures,
    UnknownTarget,
    WrongTarget,
)
from fleetwright.verify.tuf_client import Limits

from controlplane.packaging.rules import Decision
from controlplane.packaging.store import metadata
from controlplane.packaging.throughput import Throughput
from controlplane.sessions import package_streams
from controlplane.storage.opening import open_database
from tests.contracts.releases_world import PACKAGE, SHA256, World
from tests.integration.releases.releases_served import Admission, Agent, Between, RpcFetcher, served

BIG = bytes(range(256)) * 4096


@pytest_asyncio.fixture
async def line(made: World) -> AsyncIterator[tuple[Agent, Between, Admission]]:
    await made.add()
    await made.releases.publish(SHA256)
    async with served(made) as opened:
        yield opened


@pytest.fixture
def agent(line: tuple[Agent, Between, Admission]) -> Agent:
    return line[0]


@pytest.fixture
def between(line: tuple[Agent, Between, Admission]) -> Between:
    return line[1]


async def another(made: World, number: int = 1) -> None:
    """Release one more package, so that every online role has a newer version."""
    await made.releases.publish(await made.add(bytes([number]) * 70, name=f"n{number}", file_name="n.deb"))


async def file(made: World, name: str) -> bytes:
    async with made.database.reading() as connection:
        content = await metadata.find_file(connection, name)
    assert content is not None
    return content


def stored(made: World, sha256: str = SHA256) -> Path:
    return made.folder / "blobs" / "sha256" / sha256[:2] / sha256


def code_of(error: Any) -> str:
    return str(error.value.code().name)


async def test_an_agent_fetches_verifies_and_may_install(agent: Agent) -> None:
    report = await agent.install()
    assert report.ok, str(report)
    assert (agent.folder / "package").read_bytes() == PACKAGE


async def test_bytes_that_were_swapped_in_the_store_are_never_sent_whole(agent: Agent, made: World) -> None:
    stored(made).write_bytes(PACKAGE.swapcase())
    with pytest.raises(FetchFailed, match=r"DATA_LOSS: .*gone or damaged"):
        await agent.install()
    stored(made).write_bytes(PACKAGE + b"more")
    with pytest.raises(FetchFailed, match="gone or damaged"):
        await agent.install()
    stored(made).unlink()
    with pytest.raises(FetchFailed, match=r"UNAVAILABLE: .*gone or damaged"):
        await agent.install()
    assert not (agent.folder / "package").exists()


async def test_bytes_that_are_swapped_on_the_way_are_refused(agent: Agent, between: Between) -> None:
    between.pieces = lambda _request: iter([PACKAGE.swapcase()])
    with pytest.raises(WrongTarget):
        await agent.install()
    assert not (agent.folder / "package").exists()


async def test_attestations_of_another_package_are_refused(
    agent: Agent, between: Between, made: World
) -> None:
    await another(made)
    state = await made.releases.repository.state()
    targets = json.loads(state.channels["stable"])["signed"]["targets"]
    foreign = targets["stable/n1/n.deb.attestations.jsonl"]["hashes"]["sha256"]

    def swapped(request: Any) -> Any:
        return iter([PACKAGE if request.sha256 == SHA256 else stored(made, foreign).read_bytes()])

    between.pieces = swapped
    with pytest.raises((WrongTarget, EndlessData)):
        await agent.install()


async def test_older_metadata_is_a_rollback(agent: Agent, between: Between, made: World) -> None:
    old = await file(made, "timestamp.json")
    await another(made)
    await agent.refresh()
    between.files["timestamp.json"] = lambda _content: old
    with pytest.raises(Rollback):
        await agent.refresh()


async def test_metadata_that_stands_still_ends(agent: Agent, made: World) -> None:
    await agent.refresh()
    made.clock.advance(25 * 3600)
    with pytest.raises(Expired):
        await agent.install()
    assert await made.releases.refresh()
    await made.attest()
    await made.releases.publish(SHA256)
    assert (await agent.install()).ok


async def test_newer_metadata_that_is_held_back_ends_too(agent: Agent, between: Between, made: World) -> None:
    await agent.refresh()
    old = await file(made, "timestamp.json")
    between.files["timestamp.json"] = lambda _content: old
    made.clock.advance(25 * 3600)
    await made.releases.refresh()
    with pytest.raises(Expired):
        await agent.refresh()


async def test_files_of_two_publications_are_a_mix(agent: Agent, between: Between, made: World) -> None:
    old = await file(made, "2.snapshot.json")
    await another(made)
    between.files["3.snapshot.json"] = lambda _content: old
    with pytest.raises(MixAndMatch):
        await agent.refresh()


async def test_a_signature_too_few_is_refused(agent: Agent, between: Between, made: World) -> None:
    document = json.loads(await file(made, "timestamp.json"))
    document["signatures"] = []
    between.files["timestamp.json"] = lambda _content: json.dumps(document).encode()
    with pytest.raises(TooFewSignatures):
        await agent.refresh()


async def test_a_root_that_too_few_have_signed_is_refused(
    agent: Agent, between: Between, made: World
) -> None:
    document = json.loads(await file(made, "1.root.json"))
    document["signed"]["version"] = 2
    between.files["2.root.json"] = lambda _content: json.dumps(document).encode()
    with pytest.raises(TooFewSignatures):
        await agent.refresh()


async def test_endless_metadata_is_cut_off(agent: Agent, between: Between) -> None:
    between.files["timestamp.json"] = lambda content: content + b" " * 100_000
    with pytest.raises(EndlessData):
        await agent.refresh(Limits(timestamp=16 * 1024))


async def test_endless_bytes_are_cut_off(agent: Agent, between: Between) -> None:
    between.pieces = lambda _request: itertools.repeat(b"x" * 65_536)
    with pytest.raises((EndlessData, WrongTarget)):
        await agent.install()


async def test_a_withdrawn_package_is_refused_at_the_next_refresh(agent: Agent, made: World) -> None:
    assert (await agent.install()).ok
    await made.decide(Decision.FAIL)
    await made.releases.withdraw(SHA256, "critical")
    with pytest.raises(UnknownTarget):
        await agent.install()


async def test_what_did_not_pass_is_downloaded_by_no_agent(agent: Agent, made: World) -> None:
    refused = await made.add(b"refused" * 9, name="bad", decision=Decision.FAIL)
    unreleased = await made.add(b"unreleased" * 9, name="new")
    await made.decide(Decision.FAIL)
    for sha256 in (refused, unreleased, SHA256):
        with pytest.raises(grpc.RpcError, match="not released") as error:
            await agent.download(sha256)
        assert code_of(error) == "FAILED_PRECONDITION"
    with pytest.raises(grpc.RpcError, match="nothing of") as error:
        await agent.download("f" * 64)
    assert code_of(error) == "NOT_FOUND"


async def test_a_download_goes_on_at_an_offset(agent: Agent, made: World) -> None:
    sha256 = await made.add(BIG, name="big", file_name="big.deb")
    await made.releases.publish(sha256)
    for offset in (0, 1, 262_144, 600_000, len(BIG) - 1, len(BIG)):
        pieces = await agent.download(sha256, offset)
        assert b"".join(piece.data for piece in pieces) == BIG[offset:]
        assert pieces[0].offset == offset
        assert {piece.total_bytes for piece in pieces} == {len(BIG)}
        assert max(len(piece.data) for piece in pieces) <= 262_144
    with pytest.raises(grpc.RpcError, match=r"offset: .* is behind the end") as error:
        await agent.download(sha256, len(BIG) + 1)
    assert code_of(error) == "INVALID_ARGUMENT"


async def test_a_resumed_download_of_changed_bytes_is_not_finished(agent: Agent, made: World) -> None:
    sha256 = await made.add(BIG, name="big", file_name="big.deb")
    await made.releases.publish(sha256)
    stored(made, sha256).write_bytes(b"X" + BIG[1:])
    with pytest.raises(grpc.RpcError, match="gone or damaged") as error:
        await agent.download(sha256, len(BIG) - 10)
    assert code_of(error) == "DATA_LOSS"


async def test_metadata_that_is_not_there_is_not_found(agent: Agent) -> None:
    fetcher = RpcFetcher(agent.stub)
    with pytest.raises(NotFound, match=r"7\.root\.json"):
        await asyncio.to_thread(lambda: list(fetcher.metadata("7.root.json")))


async def test_an_agent_whose_certificate_was_revoked_gets_nothing(
    line: tuple[Agent, Between, Admission],
) -> None:
    agent, _, admission = line
    admission.denied = True
    with pytest.raises(FetchFailed, match="UNAUTHENTICATED"):
        await agent.refresh()
    with pytest.raises(grpc.RpcError) as error:
        await agent.download(SHA256)
    assert code_of(error) == "UNAUTHENTICATED"


async def test_a_certificate_that_is_revoked_ends_a_download(
    line: tuple[Agent, Between, Admission], made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _, admission = line

    async def for_ever(_seconds: float) -> None:
        admission.denied = True
        await asyncio.Event().wait()

    monkeypatch.setattr(package_streams, "CHECKED_EVERY", timedelta(milliseconds=10))
    made.downloads._throughput = Throughput(1, 0, sleep=for_ever)
    with pytest.raises(grpc.RpcError, match="was revoked") as error:
        await agent.download(SHA256)
    assert code_of(error) == "UNAUTHENTICATED"
    assert made.downloads.under_way == 0


async def test_a_database_that_was_put_back_does_not_stop_the_agents(agent: Agent, made: World) -> None:
    path, backup = made.folder / "fleetwright.db", made.folder / "backup.db"
    await made.database.close()
    shutil.copyfile(path, backup)
    made.database = open_database(path)
    await another_process(made)
    await another(made)
    await another(made, 2)
    seen = await agent.refresh()
    await made.database.close()
    shutil.copyfile(backup, path)
    made.database = open_database(path)
    await another_process(made)
    with pytest.raises(Rollback):
        await agent.refresh()
    assert await made.releases.refresh()
    after = await agent.refresh()
    assert all(after[role] >= version for role, version in seen.items())
    assert (await agent.install()).ok
    await another(made, 3)
    assert (await agent.refresh())["timestamp"] == after["timestamp"] + 1


async def another_process(made: World) -> None:
    """Let everything be asked of a process that has just begun."""
    made.releases = made.process()
    made.downloads._source, made.downloads._database = made.releases, made.database
