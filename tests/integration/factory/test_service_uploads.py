"""Uploads through a real server: resumed where they stand, refused where they are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane.packaging import uploads
from tests.integration.factory.factory_world import DATA, SHA256, Factory, factory_of
from tests.support.streams import PATIENCE

PART = 512


@pytest.fixture
async def factory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Factory]:
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
    async with factory_of(folder, artefact_bytes=4096) as made:
        yield made


async def cut_off(factory: Factory, upload: pb2.Upload, keep: int) -> pb2.Upload:
    """Send the first part of an upload, and go away in the middle of the next one."""
    call = factory.calls.UploadArtefact()
    for place in range(0, keep + 100, 100):
        await call.write(
            pb2.UploadArtefactRequest(upload=upload.name, offset=place, data=DATA[place : place + 100])
        )
    request = pb2.GetUploadRequest(name=upload.name)
    async with asyncio.timeout(PATIENCE):
        found: pb2.Upload = (await factory.calls.GetUpload(request)).upload
        while found.committed_bytes < keep:
            found = (await factory.calls.GetUpload(request)).upload
    call.cancel()
    return found


async def test_an_upload_that_was_cut_off_goes_on_where_it_stands(factory: Factory) -> None:
    upload = await factory.start()
    stands = await cut_off(factory, upload, PART)
    assert (stands.artefact, PART <= stands.committed_bytes < len(DATA)) == ("", True)
    at = stands.committed_bytes
    done = await factory.send(upload, DATA[at:], at)
    assert (done.artefact, done.committed_bytes) == (f"artefacts/{SHA256}", len(DATA))


async def test_a_piece_at_another_place_is_told_where_the_upload_stands(factory: Factory) -> None:
    upload = await factory.start()
    at = (await cut_off(factory, upload, PART)).committed_bytes
    with pytest.raises(grpc.aio.AioRpcError, match=f"stands, at {at}") as error:
        await factory.send(upload, DATA)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_the_same_request_begins_one_upload_and_another_content_is_refused(factory: Factory) -> None:
    first, again = [await factory.start(request_id="r1") for _ in range(2)]
    assert first == again
    with pytest.raises(grpc.aio.AioRpcError, match="r1"):
        await factory.start(b"other", request_id="r1")


async def test_wrong_bytes_are_thrown_away_and_sent_again(factory: Factory) -> None:
    upload = await factory.start()
    with pytest.raises(grpc.aio.AioRpcError, match="sha256") as error:
        await factory.send(upload, bytes(len(DATA)))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await factory.send(upload, DATA)).artefact


async def test_what_is_there_needs_no_bytes(factory: Factory) -> None:
    await factory.artefact()
    assert (await factory.start(file_name="again.whl")).artefact == f"artefacts/{SHA256}"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"size_bytes": 4097}, "size_bytes"),
        ({"file_name": "a/b"}, "file_name"),
        ({"sha256": "0"}, "sha256"),
    ],
)
async def test_an_upload_that_cannot_be_is_refused_by_its_field(
    factory: Factory, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=named) as error:
        await factory.start(**fields)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_uploads_whose_time_is_over_go(folder: Path) -> None:
    async with factory_of(folder, upload_time="1m") as factory:
        upload = await factory.start()
        server = factory.site.server
        assert server is not None
        assert await server.rooms.packaging.uploads.sweep() == 0
        found = await factory.calls.GetUpload(pb2.GetUploadRequest(name=upload.name))
        assert found.upload == upload
