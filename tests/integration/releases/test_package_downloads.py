"""Ranges for administrators, and the limits of what agents download at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from controlplane.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from controlplane.packaging.agent_downloads import LOOK_AGAIN, AgentDownloads, DownloadPolicy
from controlplane.packaging.downloads import Downloads, Piece
from controlplane.packaging.rules import Decision
from controlplane.packaging.throughput import Throughput
from tests.contracts.releases_world import PACKAGE, SHA256, World, envelopes

BIG = bytes(range(256)) * 4096


async def whole(pieces: AsyncIterator[Piece]) -> bytes:
    content = b""
    async for piece in pieces:
        content += piece.data
    return content


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 10), (7, 0), (7, 100), (7, 10_000), (len(PACKAGE), 0), (1159, 1)]
)
async def test_a_range_is_what_was_asked_for(made: World, offset: int, length: int) -> None:
    await made.add(decision=Decision.FAIL)
    downloads = Downloads(made.database, made.blobs)
    end = offset + length if length else len(PACKAGE)
    for part in ("", "package"):
        pieces = [piece async for piece in downloads.package(SHA256, part, offset, length, 100)]
        assert b"".join(piece.data for piece in pieces) == PACKAGE[offset:end]
        assert pieces[0].offset == offset
        assert {piece.total for piece in pieces} == {len(PACKAGE)}


async def test_attestations_are_parts_of_a_package(made: World) -> None:
    await made.add()
    line = envelopes(PACKAGE)["scan"]
    downloads = Downloads(made.database, made.blobs)
    assert await whole(downloads.package(SHA256, "scan", 0, 0, 100)) == line
    assert await whole(downloads.package(SHA256, "scan", 5, 300, 100)) == line[5:305]
    with pytest.raises(NotFound, match="part: there is no 'licence': there are package, provenance, sbom"):
        await whole(downloads.package(SHA256, "licence", 0, 0))
    with pytest.raises(InvalidArgument, match="behind the end"):
        await whole(downloads.package(SHA256, "scan", len(line) + 1, 0))
    with pytest.raises(NotFound, match="packages/"):
        await whole(downloads.package("f" * 64, "", 0, 0))


async def test_a_range_to_the_end_of_changed_bytes_is_not_finished(made: World) -> None:
    await made.add()
    (made.folder / "blobs" / "sha256" / SHA256[:2] / SHA256).write_bytes(PACKAGE.swapcase())
    got: list[bytes] = []
    with pytest.raises(DataLoss, match="gone or damaged"):
        await _take(Downloads(made.database, made.blobs).package(SHA256, "", 0, 0, 100), got)
    assert len(b"".join(got)) < len(PACKAGE)


async def _take(pieces: AsyncIterator[Piece], got: list[bytes]) -> None:
    async for piece in pieces:
        got.append(piece.data)


async def test_so_many_downloads_go_on_and_of_one_agent_fewer(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    begun = [made.downloads.artefact(name, SHA256, 0) for name in ("a1", "a1", "a2")]
    for download in begun:
        await anext(download)
    with pytest.raises(ResourceExhausted, match="3 downloads go on here") as refused:
        await whole(made.downloads.artefact("a3", SHA256, 0))
    assert refused.value.retry_after is not None
    await begun.pop().aclose()
    with pytest.raises(ResourceExhausted, match="2 of them of a1"):
        await whole(made.downloads.artefact("a1", SHA256, 0))
    assert await whole(made.downloads.artefact("a3", SHA256, 0)) == PACKAGE
    for download in begun:
        await download.aclose()
    assert made.downloads.under_way == 0


async def test_a_decision_against_a_package_ends_its_downloads(made: World) -> None:
    sha256, now = await made.add(BIG), [0.0]
    await made.releases.publish(sha256)
    downloads = AgentDownloads(made.database, made.blobs, made.releases, DownloadPolicy(), lambda: now[0])
    async with aclosing(downloads.artefact("a1", sha256, 0)) as pieces:
        await anext(pieces)
        await made.decide(Decision.FAIL, sha256)
        await anext(pieces)
        now[0] += LOOK_AGAIN
        with pytest.raises(FailedPrecondition, match="not released, or not any more"):
            await anext(pieces)


async def test_every_piece_waits_for_its_turn(made: World) -> None:
    sha256, slept, now = await made.add(BIG), [0.0], [0.0]
    await made.releases.publish(sha256)

    async def sleep(seconds: float) -> None:
        slept[0] += seconds
        now[0] += seconds

    shared = Throughput(262_144, 262_144, lambda: now[0], sleep)
    downloads = AgentDownloads(made.database, made.blobs, made.releases, DownloadPolicy(), throughput=shared)
    assert await whole(downloads.artefact("a1", sha256, 0)) == BIG
    assert slept == [3.0]
