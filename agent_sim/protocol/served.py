"""The server's files for its agents, over whichever session is live.

Work outlives sessions, and so does what it fetches: where a connection goes while a file comes, whoever reads
it asks again from where it stands, and is answered over the next session.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

import grpc
from fleetwright.v1 import agent_service_pb2

from agent_sim.host import (
    FilesDamagedError,
    FilesEndlessError,
    FilesError,
    FilesRefusedError,
    FilesUnavailableError,
    FileUnknownError,
    Piece,
)
from agent_sim.protocol.failures import Failure, failure_of

if TYPE_CHECKING:
    from fleetwright.v1 import agent_service_pb2_grpc

    Stub = agent_service_pb2_grpc.AgentServiceAsyncStub

ANSWER_WITHIN: Final = timedelta(seconds=60)
"""How long the server may take for a metadata file, or for the next piece of an artefact."""
SESSION_WITHIN: Final = timedelta(minutes=2)
"""How long a session is waited for before the caller is told that there is none."""

# FetchMetadataRequest.file_name in the contract: other names do not exist, whoever made them up.
_METADATA_NAME = re.compile(r"([0-9]{1,18}\.)?[a-z][a-z0-9-]{0,31}\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_TRY_AGAIN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)


class ServedFiles:
    """Implements ``ServerFiles``. The engine says which session is live; before it does, nothing is."""

    def __init__(
        self, answer_within: timedelta = ANSWER_WITHIN, session_within: timedelta = SESSION_WITHIN
    ) -> None:
        self._answer_within = answer_within.total_seconds()
        self._session_within = session_within.total_seconds()
        self._stub: Stub | None = None
        self._live = asyncio.Event()

    def use(self, stub: Stub) -> None:
        """Ask over this session from now on."""
        self._stub = stub
        self._live.set()

    def lost(self) -> None:
        """Hear that there is no session."""
        self._stub = None
        self._live.clear()

    async def metadata(self, name: str) -> bytes:
        """Return a metadata file; see the port."""
        if not _METADATA_NAME.fullmatch(name):
            raise FileUnknownError(f"{name[:80]!r}: no repository has a metadata file of such a name")
        stub = await self._session(name)
        request = agent_service_pb2.FetchMetadataRequest(file_name=name)
        try:
            response = await stub.FetchMetadata(request, timeout=self._answer_within)
        except grpc.aio.AioRpcError as error:
            raise _error(name, failure_of(error)) from None
        except asyncio.CancelledError:
            _unless_cut(name)
            raise
        return response.content

    async def artefact(self, sha256: str, offset: int) -> AsyncIterator[Piece]:
        """Give an artefact's bytes; see the port."""
        if not _SHA256.fullmatch(sha256):
            raise FileUnknownError(f"{sha256[:80]!r}: not a SHA-256 in lower-case hexadecimal")
        stub = await self._session(sha256)
        call = stub.DownloadArtefact(agent_service_pb2.DownloadArtefactRequest(sha256=sha256, offset=offset))
        try:
            while (answer := await self._next(sha256, call)) is not None:
                yield Piece(answer.offset, answer.data, answer.total_bytes)
        finally:
            call.cancel()

    async def _session(self, name: str) -> Stub:
        if self._stub is None:
            try:
                await asyncio.wait_for(self._live.wait(), self._session_within)
            except TimeoutError:
                raise FilesUnavailableError(f"{name}: there is no session with the server") from None
        stub = self._stub
        if stub is None:
            raise FilesUnavailableError(f"{name}: the session with the server is lost")
        return stub

    async def _next(
        self,
        name: str,
        call: grpc.aio.UnaryStreamCall[
            agent_service_pb2.DownloadArtefactRequest, agent_service_pb2.DownloadArtefactResponse
        ],
    ) -> agent_service_pb2.DownloadArtefactResponse | None:
        try:
            async with asyncio.timeout(self._answer_within):
                answer = await call.read()
        except TimeoutError:
            raise FilesUnavailableError(f"{name}: nothing came for {self._answer_within:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise _error(name, failure_of(error)) from None
        except asyncio.CancelledError:
            _unless_cut(name)
            raise
        return None if answer is grpc.aio.EOF else cast("agent_service_pb2.DownloadArtefactResponse", answer)


def _unless_cut(name: str) -> None:
    """Raise ``FilesUnavailableError`` where the call was cancelled, and not who waits for it.

    gRPC tells both in the same way; a call is cancelled where its channel is closed under it.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise FilesUnavailableError(f"{name}: the connection was closed") from None


def _error(name: str, failure: Failure) -> FilesError:
    words = f"{name}: {failure.name}: {failure.message}"
    if failure.code is grpc.StatusCode.NOT_FOUND:
        return FileUnknownError(words)
    if failure.code is grpc.StatusCode.DATA_LOSS:
        return FilesDamagedError(words)
    if failure.too_long:
        return FilesEndlessError(words)
    if failure.code in _TRY_AGAIN or failure.status_lost or failure.session_stale:
        return FilesUnavailableError(words, failure.retry_after)
    return FilesRefusedError(words)
