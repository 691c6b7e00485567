"""The server's files over a session: what each status means, and sessions that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc

from agent_sim.host import (
    FilesDamagedError,
    FilesEndlessError,
    FilesRefusedError,
    FilesUnavailableError,
    FileUnknownError,
)
from agent_sim.protocol.served import ServedFiles
from tests.integration.agent_sim.protocol_authority import Authority
from tests.integration.agent_sim.protocol_server import ScriptedServer, rich_error

SHA = "0" * 64
SOON = timedelta(seconds=1)


class Files(ScriptedServer):
    """Answers what it is asked for, with the error that a test wants."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self.error: tuple[Any, ...] = ()
        self.silent = False

    async def FetchMetadata(self, request: Any, context: Any) -> agent_service_pb2.FetchMetadataResponse:
        if self.error:
            await context.abort(*self.error)
        if self.silent:
            await asyncio.Event().wait()
        return agent_service_pb2.FetchMetadataResponse(content=request.file_name.encode())

    async def DownloadArtefact(
        self, request: Any, context: Any
    ) -> AsyncIterator[agent_service_pb2.DownloadArtefactResponse]:
        yield agent_service_pb2.DownloadArtefactResponse(offset=request.offset, data=b"ab", total_bytes=9)
        if self.error:
            await context.abort(*self.error)
        if self.silent:
            await asyncio.Event().wait()


class World:
    def __init__(self, service: Files, channel: grpc.aio.Channel) -> None:
        self.service, self.channel = service, channel
        self.stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        self.files = ServedFiles(timedelta(milliseconds=300), timedelta(milliseconds=50))

    async def bytes(self, offset: int = 0) -> bytes:
        return b"".join([piece.data async for piece in self.files.artefact(SHA, offset)])


@pytest_asyncio.fixture
async def served(authority: Authority) -> AsyncIterator[World]:
    service = Files(authority)
    server = grpc.aio.server()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield World(service, channel)
    await server.stop(None)


async def test_files_come_over_the_session_that_is_live(served: World) -> None:
    served.files.use(served.stub)
    assert await served.files.metadata("3.root.json") == b"3.root.json"
    assert [piece.offset async for piece in served.files.artefact(SHA, 7)] == [7]


async def test_without_a_session_they_are_waited_for_and_then_not_to_be_had(served: World) -> None:
    with pytest.raises(FilesUnavailableError, match="no session"):
        await served.files.metadata("timestamp.json")
    asking = asyncio.create_task(served.files.metadata("timestamp.json"))
    await asyncio.sleep(0)
    served.files.use(served.stub)
    assert await asking == b"timestamp.json"
    served.files.lost()
    with pytest.raises(FilesUnavailableError, match="no session"):
        await served.bytes()


@pytest.mark.parametrize("name", ["../secret.json", "1.Root.json", "a/b.json", "", "root", "%2e.json"])
async def test_a_name_that_no_repository_has_is_not_asked_for(served: World, name: str) -> None:
    served.files.use(served.stub)
    with pytest.raises(FileUnknownError):
        await served.files.metadata(name)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (rich_error(grpc.StatusCode.NOT_FOUND, "METADATA_UNKNOWN"), FileUnknownError),
        (rich_error(grpc.StatusCode.FAILED_PRECONDITION, "TRUST_NOT_SET_UP"), FilesRefusedError),
        (rich_error(grpc.StatusCode.PERMISSION_DENIED, "IDENTITY_NOT_ALLOWED"), FilesRefusedError),
        (rich_error(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STALE"), FilesUnavailableError),
        (rich_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", SOON), FilesUnavailableError),
        ((grpc.StatusCode.UNAVAILABLE, "going away"), FilesUnavailableError),
        (rich_error(grpc.StatusCode.DATA_LOSS, "BYTES_DAMAGED"), FilesDamagedError),
        (
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"),
            FilesEndlessError,
        ),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"), FilesUnavailableError),
    ],
)
async def test_each_status_says_whether_to_ask_again(
    served: World, error: Any, kind: type[Exception]
) -> None:
    served.files.use(served.stub)
    served.service.error = error
    with pytest.raises(kind) as caught:
        await served.files.metadata("timestamp.json")
    assert type(caught.value) is kind
    with pytest.raises(kind):
        await served.bytes()
    if isinstance(caught.value, FilesUnavailableError):
        assert caught.value.retry_after == (SOON if "RATE_LIMITED" in str(caught.value) else None)


async def test_silence_ends_as_unavailable(served: World) -> None:
    served.files.use(served.stub)
    served.service.silent = True
    with pytest.raises(FilesUnavailableError):
        await served.files.metadata("timestamp.json")
    with pytest.raises(FilesUnavailableError, match="nothing came"):
        await served.bytes()


async def test_a_channel_that_is_closed_under_a_download_is_a_cut(served: World) -> None:
    served.files.use(served.stub)
    served.service.silent = True
    pieces = served.files.artefact(SHA, 0)
    assert (await anext(pieces)).data == b"ab"
    closing = asyncio.create_task(served.channel.close())
    with pytest.raises(FilesUnavailableError):
        await anext(pieces)
    await closing


async def test_who_is_cancelled_hears_of_no_cut(served: World) -> None:
    served.files.use(served.stub)
    served.service.silent = True
    reading = asyncio.create_task(served.bytes())
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
