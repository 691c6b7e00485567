"""Uploads on real databases and in a real folder: resumed where they stand, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
import pytest_asyncio
from obstore.exceptions import GenericError

from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from controlplane.packaging import uploads
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.store.uploads import ArtefactRecord, UploadRecord, find_artefact
from controlplane.packaging.uploads import Piece, UploadPolicy, Uploads
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.contracts.agents_world import SetClock

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
PART = 4_096


class _World:
    def __init__(self, database: Database, made: Uploads, blobs: Blobs, clock: SetClock) -> None:
        self.database, self.uploads, self.blobs, self.clock = database, made, blobs, clock

    async def artefact(self) -> ArtefactRecord:
        async with self.database.reading() as connection:
            found = await find_artefact(connection, SHA256)
        assert found is not None
        return found

    async def start(self, size: int = len(DATA), sha256: str = SHA256) -> str:
        return (await self.uploads.start("ada", "x.whl", size, sha256)).upload_id

    async def send(self, upload_id: str, offset: int, data: bytes, size: int = 1_000) -> UploadRecord:
        async def pieces() -> AsyncIterator[Piece]:
            for place in range(0, len(data), size):
                yield Piece(upload_id if not place else "", offset + place, data[place : place + size])

        return await self.uploads.take(pieces())


@pytest_asyncio.fixture
async def world(location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_World]:
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
    database, clock, blobs = open_database(location), SetClock(), Blobs(tmp_path / "blobs")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made = Uploads(database, blobs, clock, UploadPolicy(1 << 20, timedelta(hours=1)), scratch)
    yield _World(database, made, blobs, clock)
    await database.close()


async def test_an_upload_becomes_an_artefact_and_its_parts_go(world: _World) -> None:
    upload_id = await world.start()
    done = await world.send(upload_id, 0, DATA)
    assert (done.complete, done.committed) == (True, len(DATA))
    assert b"".join([piece async for piece in world.blobs.read(SHA256)]) == DATA
    again = await world.uploads.start("bob", "y.whl", len(DATA), SHA256)
    assert again.complete, "the artefact is there: nothing needs to be sent"


async def test_an_upload_to_a_full_disk_goes_on_once_there_is_room(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id, room = await world.start(), PART
    put = obstore.put_async

    async def limited(store: Any, name: str, data: Any, **wishes: Any) -> Any:
        if int(name.rpartition("/")[2]) >= room:
            # What the library says of a full disk, as it says it.
            raise GenericError(
                "Generic LocalFileSystem error: No space left on device (os error 28)\n\nDebug"
            )
        return await put(store, name, data, **wishes)

    with monkeypatch.context() as full:
        full.setattr(obstore, "put_async", limited)
        with pytest.raises(Unavailable, match="full"):
            await world.send(upload_id, 0, DATA)
    committed = (await world.uploads.get(upload_id)).committed
    assert 0 < committed < len(DATA)
    assert (await world.send(upload_id, committed, DATA[committed:])).complete


async def test_another_error_of_the_store_is_not_taken_for_a_full_disk(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **_wishes: Any) -> Any:
        raise GenericError("Generic LocalFileSystem error: Input/output error (os error 5)")

    monkeypatch.setattr(obstore, "put_async", broken)
    with pytest.raises(GenericError):
        await world.send(await world.start(), 0, DATA)


async def test_an_artefact_has_the_name_that_it_was_given_last(world: _World) -> None:
    """Else bytes that came once by a name that is not theirs could never be packaged."""
    second = await world.start()
    await world.send(await world.start(), 0, DATA)
    assert (await world.artefact()).file_name == "x.whl"
    await world.uploads.start("bob", "y.deb", len(DATA), SHA256)
    assert (await world.artefact()).file_name == "y.deb", "known already"
    await world.send(second, 0, DATA)
    assert (await world.artefact()).file_name == "x.whl", "sent once more"
    assert (await world.artefact()).creator == "ada"


async def test_a_call_that_is_cut_off_goes_on_at_the_last_whole_part(world: _World) -> None:
    upload_id = await world.start()

    async def cut() -> AsyncIterator[Piece]:
        for place in range(0, 6_000, 1_000):
            yield Piece(upload_id, place, DATA[place : place + 1_000])
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await world.uploads.take(cut())
    stands = (await world.uploads.get(upload_id)).committed
    assert stands == 5_000
    assert (await world.send(upload_id, stands, DATA[stands:])).complete


async def test_a_piece_that_does_not_fit_is_refused_with_where_the_upload_stands(world: _World) -> None:
    upload_id = await world.start()
    for offset, data in ((5, b"xx"), (0, DATA + b"x")):
        with pytest.raises(FailedPrecondition) as refused:
            await world.send(upload_id, offset, data, size=1 << 20)
        assert refused.value.reason == "UPLOAD_OFFSET"
        assert refused.value.metadata == {"committed_bytes": "0"}
    assert (await world.send(upload_id, 0, DATA)).complete


async def test_bytes_with_another_digest_are_thrown_away_and_may_come_again(world: _World) -> None:
    upload_id = await world.start()
    with pytest.raises(InvalidArgument) as refused:
        await world.send(upload_id, 0, DATA[::-1])
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert (await world.uploads.get(upload_id)).committed == 0
    assert not await world.blobs.has(SHA256)
    assert (await world.send(upload_id, 0, DATA)).complete


async def test_an_upload_that_is_too_large_or_lies_about_what_is_there_is_refused(world: _World) -> None:
    with pytest.raises(InvalidArgument, match="size_bytes"):
        await world.start(size=(1 << 20) + 1)
    await world.send(await world.start(), 0, DATA)
    with pytest.raises(InvalidArgument, match="size_bytes"):
        await world.start(size=len(DATA) - 1)


async def test_an_upload_whose_time_is_over_goes_with_its_parts(world: _World) -> None:
    upload_id = await world.start()
    await world.send(upload_id, 0, DATA[:5_000])
    assert await world.uploads.sweep() == 0
    world.clock.advance(3_600)
    assert await world.uploads.sweep() == 1
    with pytest.raises(NotFound) as refused:
        await world.uploads.get(upload_id)
    assert refused.value.reason == "UPLOAD_UNKNOWN"
    assert not await world.blobs._parts(upload_id)


async def test_a_store_that_holds_other_bytes_under_a_digest_is_mended_by_the_next_upload(
    world: _World, tmp_path: Path
) -> None:
    torn = tmp_path / "blobs" / "sha256" / SHA256[:2] / SHA256
    torn.parent.mkdir(parents=True)
    torn.write_bytes(DATA[:100])
    await world.send(await world.start(), 0, DATA)
    assert await world.blobs.verify(SHA256)
