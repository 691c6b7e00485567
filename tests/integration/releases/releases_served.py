"""AgentService's two calls about packages over a real channel, with a place for who stands between to lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import agent_service_pb2_grpc as pb2_grpc
from fleetwright.verify.errors import FetchFailed, NotFound
from fleetwright.verify.evidence import fetch, judge
from fleetwright.verify.reports import Report
from fleetwright.verify.tuf_client import Limits, TufClient

from controlplane.callers import Caller, IdentityKind
from controlplane.errors import ServiceError, Unauthenticated
from controlplane.sessions.handler import AgentHandler
from controlplane.sessions.package_streams import PackageStreams
from controlplane.transport import errors
from controlplane.transport.context import set_caller
from tests.contracts.releases_world import PATH, World, made_once

HOST = "127.0.0.1"


class Admission:
    """Who may call: everybody, until a test says otherwise."""

    def __init__(self) -> None:
        self.denied = False

    async def admit(self, caller: Caller) -> bool:
        if self.denied:
            raise Unauthenticated("CERTIFICATE_REVOKED", "revoked")
        return False

    def is_denied(self, serial: str) -> bool:
        return self.denied


class Between(pb2_grpc.AgentServiceServicer):
    """The real handler, and what a test puts in the place of its answers."""

    def __init__(self, handler: AgentHandler, not_after: int) -> None:
        self._handler = handler
        self._caller = Caller(
            kind=IdentityKind.AGENT,
            name="a1",
            spiffe_id="spiffe://x/agent/a1",
            serial="01",
            not_after=not_after,
        )
        self.files: dict[str, Callable[[bytes], bytes]] = {}
        self.pieces: Callable[[pb2.DownloadArtefactRequest], Iterator[bytes]] | None = None

    async def FetchMetadata(self, request: pb2.FetchMetadataRequest, context: Any) -> Any:
        change = self.files.get(request.file_name)
        if change is not None and request.file_name[0].isdigit():
            return pb2.FetchMetadataResponse(content=change(b""))
        response = await self._refusing(context, lambda: self._handler.FetchMetadata(request, context))
        return response if change is None else pb2.FetchMetadataResponse(content=change(response.content))

    async def DownloadArtefact(self, request: pb2.DownloadArtefactRequest, context: Any) -> None:  # type: ignore[override] # as the handler
        if self.pieces is None:
            await self._refusing(context, lambda: self._handler.DownloadArtefact(request, context))
            return
        offset = 0
        for data in self.pieces(request):
            await context.write(pb2.DownloadArtefactResponse(offset=offset, data=data, total_bytes=1))
            offset += len(data)

    async def _refusing(self, context: Any, call: Callable[[], Any]) -> Any:
        set_caller(self._caller)
        try:
            return await call()
        except ServiceError as error:
            await errors.abort(context, error)


class RpcFetcher:
    """A repository behind AgentService, as an agent has it."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.refusals: list[str] = []

    def metadata(self, name: str) -> Iterator[bytes]:
        with _as_failures():
            yield self._stub.FetchMetadata(pb2.FetchMetadataRequest(file_name=unquote(name))).content

    def target(self, path: str) -> Iterator[bytes]:
        sha256 = path.rpartition("/")[2].partition(".")[0]
        with _as_failures():
            for piece in self._stub.DownloadArtefact(pb2.DownloadArtefactRequest(sha256=sha256)):
                yield piece.data


class _as_failures:  # noqa: N801 - used as a function
    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, grpc.RpcError):
            status: Any = error
            kind = NotFound if status.code() is grpc.StatusCode.NOT_FOUND else FetchFailed
            raise kind(f"{status.code().name}: {status.details()}") from None


class Agent:
    """An agent's side: a client with its state on disk, and calls of its own."""

    def __init__(self, made: World, stub: Any, folder: Path) -> None:
        self.made, self.stub, self.folder = made, stub, folder
        folder.mkdir()

    def client(self, limits: Limits | None = None) -> TufClient:
        root = made_once()[1].trusted_root
        return TufClient(
            self.folder / "state", root, RpcFetcher(self.stub), self.made.clock.now, limits=limits or Limits()
        )

    async def refresh(self, limits: Limits | None = None) -> Any:
        return await asyncio.to_thread(self.client(limits).refresh)

    async def install(self, path: str = PATH) -> Report:
        """Do what an agent does before it installs: fetch and judge. Raises a ``TufError``."""
        return await asyncio.to_thread(self._install, path)

    def _install(self, path: str) -> Report:
        client, package = self.client(), self.folder / "package"
        client.download(path, package)
        parts = fetch(client, path, package, self.folder)
        return judge(client, path, parts, self.made.clock.now())

    async def download(self, sha256: str, offset: int = 0) -> list[Any]:
        request = pb2.DownloadArtefactRequest(sha256=sha256, offset=offset)
        return await asyncio.to_thread(lambda: list(self.stub.DownloadArtefact(request)))


@asynccontextmanager
async def served(made: World) -> AsyncIterator[tuple[Agent, Between, Admission]]:
    """Serve a world's releases on port 0."""
    admission: Any = Admission()
    streams = PackageStreams(made.downloads, admission, made.clock, timedelta(seconds=5))
    absent: Any = None
    handler = AgentHandler(absent, absent, absent, absent, streams)
    between = Between(handler, 2**62)  # type: ignore[abstract] # the other methods are not called
    server = grpc.aio.server()
    pb2_grpc.add_AgentServiceServicer_to_server(between, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    channel = grpc.insecure_channel(f"{HOST}:{port}", options=[("grpc.max_receive_message_length", 8 << 20)])
    try:
        yield Agent(made, pb2_grpc.AgentServiceStub(channel), made.folder / "agent"), between, admission
    finally:
        await asyncio.to_thread(channel.close)
        await server.stop(None)
